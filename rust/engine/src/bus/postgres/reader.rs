//! What one worker reads: a state machine without I/O.
//!
//! There is one cursor for the whole bus: up to there everything that is watched was handed over. Positions are given
//! in order and become visible together, so whoever knows of one may read all before it; none appears behind it later.

use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use tokio::time::Instant;

use crate::event::Offset;

/// What is known of the bus, and what of it is watched.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// `None` before the first connection.
    known: Option<Known>,
    is_connected: bool,
    /// The last position that was told while the bus had not said yet where it stands.
    early: Offset,
    /// Each with the offset behind which events are new there; `None` until the bus is connected.
    watched: HashMap<Arc<str>, Option<Offset>>,
}

#[derive(Debug)]
struct Known {
    epoch: u64,
    /// Everything up to here was handed over, or nobody watched it.
    cursor: Offset,
    /// The bus's end.
    end: Offset,
    /// The channels in which something happened beyond what is being read; `None`: perhaps all.
    touched: Option<HashSet<Arc<str>>>,
    /// What is being read.
    reading: Option<Read>,
    /// Since when the cursor has been behind.
    behind: Option<Instant>,
}

/// A part of the bus to be read, page by page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// Those that are watched and may have events there.
    pub(super) channels: Arc<[Arc<str>]>,
    /// Beyond this.
    pub(super) after: Offset,
    /// Up to this.
    pub(super) through: Offset,
}

/// What is told of new positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Positioned {
    pub(super) epoch: u64,
    /// The bus's end before them.
    pub(super) after: Offset,
    /// The last of them.
    pub(super) last: Offset,
    /// Where they are; `None`: anywhere.
    pub(super) channels: Option<Vec<String>>,
}

/// The bus began another life: what is known of it must be learnt anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NewEpoch;

impl Reader {
    /// The bus says where it stands, and has been listened to since before. Returns the channels that have a gap.
    pub(super) fn connected(&mut self, epoch: u64, last: Offset, now: Instant) -> Vec<Arc<str>> {
        self.is_connected = true;
        let last = last.max(self.early);
        let goes_on = match &mut self.known {
            // An end that is behind what was read is another bus's, whatever it calls itself.
            Some(known) if known.epoch == epoch && known.cursor <= last => {
                known.end = last;
                known.touched = (known.cursor == last).then(HashSet::default);
                known.reading = None;
                known.behind = (known.cursor < last).then_some(now);
                true
            }
            known => {
                let touched = Some(HashSet::default());
                *known = Some(Known { epoch, cursor: last, end: last, touched, reading: None, behind: None });
                false
            }
        };
        let mut gaps = Vec::new();
        for (channel, since) in &mut self.watched {
            match since {
                Some(since) if !goes_on => {
                    *since = last;
                    gaps.push(channel.clone());
                }
                Some(_) => {}
                None => *since = Some(last),
            }
        }
        gaps
    }

    /// The connection is lost: nothing is being read, and nobody knows what happens.
    pub(super) fn disconnected(&mut self) {
        self.is_connected = false;
        self.early = 0;
    }

    /// Somebody wants a channel.
    pub(super) fn watch(&mut self, channel: &Arc<str>) {
        let end = self.known.as_ref().filter(|_| self.is_connected).map(|known| known.end);
        self.watched.entry(channel.clone()).or_insert(end);
    }

    /// Nobody wants it any more.
    pub(super) fn unwatch(&mut self, channel: &str) {
        self.watched.remove(channel);
    }

    /// The epoch, and the bus's end as far as it is known.
    pub(super) fn end(&self) -> Option<(u64, Offset)> {
        self.known.as_ref().map(|known| (known.epoch, known.end))
    }

    /// Since when the cursor has been behind, where it is.
    pub(super) fn behind(&self) -> Option<Instant> {
        self.known.as_ref().and_then(|known| known.behind)
    }

    /// Positions were given.
    pub(super) fn positioned(&mut self, told: &Positioned, now: Instant) -> Result<(), NewEpoch> {
        let Some(known) = self.known.as_mut().filter(|_| self.is_connected) else {
            self.early = told.last;
            return Ok(());
        };
        if told.epoch != known.epoch {
            return Err(NewEpoch);
        }
        if told.last <= known.end {
            return Ok(());
        }
        match (&told.channels, &mut known.touched) {
            (Some(channels), Some(touched)) if told.after <= known.end => {
                let watched = channels.iter().filter_map(|channel| self.watched.get_key_value(channel.as_str()));
                touched.extend(watched.map(|(channel, _)| channel.clone()));
            }
            _ => known.touched = None,
        }
        known.end = told.last;
        known.behind.get_or_insert(now);
        Ok(())
    }

    /// What to read next, if anything.
    pub(super) fn next(&mut self, now: Instant) -> Option<Read> {
        let known = self.known.as_mut().filter(|known| self.is_connected && known.reading.is_none())?;
        if known.cursor == known.end {
            return None;
        }
        let touched = known.touched.replace(HashSet::default());
        let is_new = |channel: &Arc<str>| {
            self.watched.get(channel).is_some_and(|since| since.is_some_and(|since| since < known.end))
        };
        let channels: Arc<[_]> = match touched {
            Some(touched) => touched.into_iter().filter(is_new).collect(),
            None => self.watched.keys().filter(|channel| is_new(channel)).cloned().collect(),
        };
        if channels.is_empty() {
            known.cursor = known.end;
            known.behind = None;
            return None;
        }
        known.behind = Some(known.behind.unwrap_or(now));
        known.reading = Some(Read { channels, after: known.cursor, through: known.end });
        known.reading.clone()
    }

    /// Events of this channel up to this offset are not kept any more; returns whether that is a gap.
    pub(super) fn trimmed(&mut self, channel: &str, through: Offset) -> bool {
        match self.watched.get_mut(channel) {
            Some(Some(since)) if *since < through => {
                // Told once, however many pages it takes to get there.
                *since = through;
                true
            }
            _ => false,
        }
    }

    /// The next event of what is being read; returns the channel as it is watched, if it is to be handed over now. Nobody
    /// reads it again, should the connection be lost before the page is done.
    pub(super) fn take(&mut self, channel: &str, offset: Offset) -> Option<Arc<str>> {
        if let Some(known) = &mut self.known {
            known.cursor = known.cursor.max(offset);
        }
        let (channel, since) = self.watched.get_key_value(channel)?;
        since.is_some_and(|since| since < offset).then(|| channel.clone())
    }

    /// All that is being read was handed over up to here. Returns what of it is left.
    pub(super) fn handed(&mut self, through: Offset, now: Instant) -> Option<Read> {
        let known = self.known.as_mut()?;
        known.cursor = through;
        let reading = known.reading.as_mut()?;
        if through < reading.through {
            reading.after = through;
            return known.reading.clone();
        }
        known.reading = None;
        known.behind = (known.cursor < known.end).then_some(now);
        None
    }
}

#[cfg(test)]
mod tests;
