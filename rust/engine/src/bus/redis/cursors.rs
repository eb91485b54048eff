//! What this process knows of each channel that it watches, and what follows from what it hears. No I/O.
//!
//! Everything comes in the order in which the server did it: confirmations, events and pulses, on one connection. Each event
//! names the one before it in its channel, so a hole is seen as soon as something follows it. A pulse comes behind all that was
//! published before it: up to its offset nothing is missing in any channel that is live, and so a channel in which nothing happens
//! costs nothing. After a lost connection each channel's cursor is compared with the server's before it is live again.

use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use tokio::sync::watch;

use crate::event::{Offset, Position};

/// The channels of a process, and the epoch that their cursors are of.
#[derive(Default)]
pub(super) struct Cursors {
    epoch: u64,
    /// The greatest offset that was heard of.
    end: Offset,
    /// The last event that is known to have been accepted: should the server not know it any more, it has lost others too.
    witness: Witness,
    /// Up to here nothing is missing in those channels that are live.
    floor: Offset,
    channels: HashMap<Arc<str>, Channel>,
    /// Those that may have to be subscribed or unsubscribed.
    changed: HashSet<Arc<str>>,
    /// Subscribed ones that have no cursor, and go live with the next pulse.
    fresh: Vec<Arc<str>>,
    /// Subscribed ones whose cursor is from before: what came since has to be read.
    behind: Vec<Arc<str>>,
}

/// An event that was accepted.
#[derive(Clone, Default)]
pub(super) struct Witness {
    pub(super) epoch: u64,
    pub(super) channel: Arc<str>,
    pub(super) offset: Offset,
}

struct Channel {
    wanted: bool,
    link: Link,
    /// Everything up to here is behind us; `None`: nothing was heard yet, so nothing can be missing.
    at: Option<Offset>,
    /// Since when it is live, while it is.
    live: watch::Sender<Option<Offset>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    No,
    Subscribing,
    Subscribed,
    /// Nothing is missing up to its cursor and to the floor.
    Live,
    Unsubscribing,
}

/// What an event is to its channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It was handed over, or nobody waits for it.
    Old,
    /// The next one; the cursor stands behind it now.
    Next,
    /// Something between the cursor and the event was not heard.
    Missed,
}

/// What to do with what was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Events may have been lost here.
    Gap,
    /// This entry is the next event.
    HandOver(usize),
}

impl Channel {
    fn cursor(&self, floor: Offset) -> Option<Offset> {
        if self.link == Link::Live { Some(self.at.map_or(floor, |at| at.max(floor))) } else { self.at }
    }

    fn go_live(&mut self, at: Offset) {
        self.at = Some(at);
        self.link = Link::Live;
        self.live.send_replace(Some(at));
    }
}

impl Cursors {
    // ---- what is wanted ----

    /// Somebody wants a channel: since when it is live, or where that will be told.
    pub(super) fn want(&mut self, name: &Arc<str>) -> Result<Offset, watch::Receiver<Option<Offset>>> {
        let (changed, floor) = (&mut self.changed, self.floor);
        let channel = self.channels.entry(name.clone()).or_insert_with(|| Channel {
            wanted: false,
            link: Link::No,
            at: None,
            live: watch::Sender::new(None),
        });
        if !channel.wanted {
            channel.wanted = true;
            changed.insert(name.clone());
        }
        match channel.cursor(floor) {
            Some(at) if channel.link == Link::Live => Ok(at),
            _ => Err(channel.live.subscribe()),
        }
    }

    /// Nobody does any more.
    pub(super) fn unwant(&mut self, name: &Arc<str>) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        channel.wanted = false;
        if channel.link == Link::No {
            // Nothing is kept of those who come and go while the bus is away.
            self.channels.remove(name);
            self.changed.remove(name);
        } else {
            self.changed.insert(name.clone());
        }
    }

    /// What has to be subscribed and unsubscribed now; for each channel at most one of the two is on its way.
    pub(super) fn changes(&mut self) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let (mut subscribe, mut unsubscribe) = (Vec::new(), Vec::new());
        for name in std::mem::take(&mut self.changed) {
            let Some(channel) = self.channels.get_mut(&name) else { continue };
            match (channel.wanted, channel.link) {
                (true, Link::No) => {
                    channel.link = Link::Subscribing;
                    subscribe.push(name);
                }
                (false, Link::Subscribed | Link::Live) => {
                    channel.link = Link::Unsubscribing;
                    channel.at = None;
                    channel.live.send_replace(None);
                    unsubscribe.push(name);
                }
                (false, Link::No) => _ = self.channels.remove(&name),
                // The confirmation that is on its way asks again.
                _ => {}
            }
        }
        (subscribe, unsubscribe)
    }

    // ---- what the server says ----

    /// A channel is subscribed.
    pub(super) fn subscribed(&mut self, name: &str) {
        let Some((name, channel)) = self.find(name) else { return };
        if channel.link != Link::Subscribing {
            return;
        }
        channel.link = Link::Subscribed;
        match (channel.wanted, channel.at) {
            (false, _) => _ = self.changed.insert(name),
            (true, None) => self.fresh.push(name),
            (true, Some(_)) => self.behind.push(name),
        }
    }

    /// A channel is not subscribed any more.
    pub(super) fn unsubscribed(&mut self, name: &str) {
        let Some((name, channel)) = self.find(name) else { return };
        if channel.link == Link::Unsubscribing {
            channel.link = Link::No;
            self.changed.insert(name);
        }
    }

    /// The channel of an event, by the name that this process shares.
    pub(super) fn name(&self, name: &str) -> Option<Arc<str>> {
        self.channels.get_key_value(name).map(|(name, _)| name.clone())
    }

    /// An event, and the offset of the one before it in its channel.
    pub(super) fn judge(&mut self, name: &Arc<str>, offset: Offset, previous: Offset) -> Verdict {
        self.accepted(Position { epoch: self.epoch, offset }, name);
        let floor = self.floor;
        let Some(channel) = self.channels.get_mut(name) else { return Verdict::Old };
        if matches!(channel.link, Link::No | Link::Unsubscribing) {
            return Verdict::Old;
        }
        match channel.cursor(floor) {
            Some(at) if offset <= at => Verdict::Old,
            Some(at) if previous > at => Verdict::Missed,
            _ => {
                channel.at = Some(offset);
                Verdict::Next
            }
        }
    }

    /// An event behind a hole that nothing fills: the cursor stands behind it now, and there is a gap.
    pub(super) fn skip_to(&mut self, name: &str, offset: Offset) {
        let floor = self.floor;
        if let Some(channel) = self.channels.get_mut(name) {
            channel.at = channel.cursor(floor).max(Some(offset));
        }
    }

    /// What to do with a page of a channel's stream: offsets of its entries, each with that of the one before, the offset of the
    /// channel's last event, and, where this is the last page, the bus's end.
    pub(super) fn follow(
        &mut self,
        name: &Arc<str>,
        entries: impl Iterator<Item = (Offset, Offset)>,
        tail: Offset,
        end: Option<Offset>,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        for (entry, (offset, previous)) in entries.enumerate() {
            match self.judge(name, offset, previous) {
                Verdict::Old => continue,
                Verdict::Next => {}
                Verdict::Missed => {
                    steps.push(Step::Gap);
                    self.skip_to(name, offset);
                }
            }
            steps.push(Step::HandOver(entry));
        }
        let Some(end) = end else { return steps };
        if self.cursor(name).is_some_and(|at| at < tail) {
            steps.push(Step::Gap);
        }
        self.caught_up(name, end);
        steps
    }

    /// Nothing of a channel is missing up to here.
    pub(super) fn caught_up(&mut self, name: &str, through: Offset) {
        self.skip_to(name, through);
        if let Some(channel) = self.channels.get_mut(name)
            && channel.link == Link::Subscribed
        {
            channel.go_live(channel.at.unwrap_or(through));
        }
    }

    /// Those whose cursors have to be compared with the server's.
    pub(super) fn take_behind(&mut self) -> Vec<(Arc<str>, Offset)> {
        let behind = std::mem::take(&mut self.behind);
        behind.into_iter().filter_map(|name| Some((name.clone(), self.cursor(&name)?))).collect()
    }

    /// Where a channel's cursor stands.
    pub(super) fn cursor(&self, name: &str) -> Option<Offset> {
        self.channels.get(name)?.cursor(self.floor)
    }

    /// Whether somebody waits for a pulse.
    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// A pulse: all that was published up to here was heard.
    pub(super) fn pulse(&mut self, end: Offset) {
        self.floor = self.floor.max(end);
        self.end = self.end.max(end);
        for name in std::mem::take(&mut self.fresh) {
            if let Some(channel) = self.channels.get_mut(&name)
                && channel.link == Link::Subscribed
            {
                channel.go_live(channel.at.map_or(end, |at| at.max(end)));
            }
        }
    }

    /// The connection is lost; what was wanted still is.
    pub(super) fn lost(&mut self) {
        self.channels.retain(|_, channel| {
            channel.at = channel.cursor(self.floor);
            channel.link = Link::No;
            channel.live.send_replace(None);
            channel.wanted
        });
        self.changed = self.channels.keys().cloned().collect();
        (self.fresh, self.behind, self.floor) = (Vec::new(), Vec::new(), 0);
    }

    /// The epoch as the server says it is, where it began and where it is. Where it is another, these channels may have lost
    /// events; what the server has of those that were not heard yet is read.
    pub(super) fn begin(&mut self, epoch: u64, start: Offset, end: Offset) -> Vec<Arc<str>> {
        if epoch == self.epoch {
            self.end = self.end.max(end);
            return Vec::new();
        }
        let floor = std::mem::take(&mut self.floor);
        (self.epoch, self.end) = (epoch, end);
        let mut gaps = Vec::new();
        for (name, channel) in &mut self.channels {
            let Some(at) = channel.cursor(floor) else { continue };
            channel.at = Some(at.min(start));
            if channel.link == Link::Live {
                channel.link = Link::Subscribed;
                channel.live.send_replace(None);
                self.behind.push(name.clone());
            }
            gaps.push(name.clone());
        }
        gaps
    }

    /// The bus's end as far as it is known here.
    pub(super) fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.end }
    }

    /// An event was accepted here.
    pub(super) fn accepted(&mut self, position: Position, channel: &Arc<str>) {
        let Position { epoch, offset } = position;
        if epoch == self.epoch {
            self.end = self.end.max(offset);
            if epoch != self.witness.epoch || offset > self.witness.offset {
                self.witness = Witness { epoch, channel: channel.clone(), offset };
            }
        }
    }

    /// The last event that is known to have been accepted.
    pub(super) fn witness(&self) -> Witness {
        self.witness.clone()
    }

    fn find(&mut self, name: &str) -> Option<(Arc<str>, &mut Channel)> {
        let name = self.name(name)?;
        let channel = self.channels.get_mut(&name)?;
        Some((name, channel))
    }
}

#[cfg(test)]
mod tests;
