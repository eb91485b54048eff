//! Who gives positions: a state machine without I/O, of which every worker has one.
//!
//! Every worker hears which transactions published. Who leads asks the server at once to give positions; the others do
//! so only where an event has none after a while, and whoever finds something to position leads from then on. Nothing
//! is held while leading: a leader may be gone at any moment, and two of them do no harm.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// Transactions that are remembered; the server is asked for all of them at once, however many.
const REMEMBERED: usize = 1024;
/// Others may take this long before somebody else steps in, and up to twice as long again.
const GRACE: Duration = Duration::from_millis(50);
/// Asked this often without a reason, so that nothing stays without a position, and a silent server is found.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(3);
/// From one round to the next, where rounds find several events: each costs writers a commit.
const ROUND: Duration = Duration::from_millis(5);
/// Before the server is asked again while somebody else is at it.
const BUSY: Duration = Duration::from_millis(2);

/// Which transactions a snapshot of the server holds to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    end: u64,
    open: Vec<u64>,
}

/// The part of one worker.
#[derive(Debug)]
pub(super) struct Lead {
    leads: bool,
    /// It has positioned something since it last heard of another who did.
    won: bool,
    /// Transactions that published and are not known to be positioned.
    waiting: BTreeSet<u64>,
    /// Somebody wants to know where the bus stands.
    wanted: bool,
    /// Those of them that were known when the server was asked, which has not answered yet.
    asked: Option<BTreeSet<u64>>,
    /// When to ask for those that wait.
    due: Instant,
    /// When to ask anyway.
    keepalive: Instant,
    /// The end of the pause between two rounds.
    pause: Instant,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// So many got a position here; perhaps there are more.
    Positioned(i64, bool),
    /// Somebody else is at it.
    Busy,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,…`.
    pub(super) fn parse(text: &str) -> Option<Snapshot> {
        let mut parts = text.split(':');
        let (_, end, open) = (parts.next()?, parts.next()?, parts.next()?);
        let open = open.split(',').filter(|number| !number.is_empty()).map(str::parse).collect::<Result<_, _>>();
        Some(Snapshot { end: end.parse().ok()?, open: open.ok()? })
    }

    fn sees(&self, transaction: u64) -> bool {
        transaction < self.end && !self.open.contains(&transaction)
    }
}

impl Lead {
    /// Of a worker that has just connected; it asks at once.
    pub(super) fn new(now: Instant) -> Lead {
        let (waiting, asked) = (BTreeSet::new(), None);
        Lead { leads: true, won: false, waiting, wanted: false, asked, due: now, keepalive: now, pause: now }
    }

    /// Somebody published. `chance` is from 0 to 1.
    pub(super) fn published(&mut self, transaction: u64, now: Instant, chance: f64) {
        if self.waiting.is_empty() {
            self.due = self.when(now, chance);
        }
        if self.waiting.len() < REMEMBERED {
            self.waiting.insert(transaction);
        }
    }

    /// Somebody wants to know where the bus stands now.
    pub(super) fn wanted(&mut self) {
        self.wanted = true;
    }

    /// Somebody else, of a smaller number than this worker's or not, has given positions to all that this snapshot
    /// sees.
    pub(super) fn positioned(&mut self, snapshot: Option<&Snapshot>, is_smaller: bool, now: Instant, chance: f64) {
        // Of two who both found something the smaller one goes on.
        self.leads &= self.won && !is_smaller;
        self.won = false;
        if let Some(snapshot) = snapshot {
            self.waiting.retain(|transaction| !snapshot.sees(*transaction));
        }
        self.due = self.when(now, chance);
    }

    /// Whether the server is to be asked now, or when.
    pub(super) fn next(&mut self, now: Instant) -> Result<(), Instant> {
        let due = match (self.wanted, self.waiting.is_empty()) {
            (true, _) => now,
            (false, true) => self.keepalive,
            (false, false) => self.due.min(self.keepalive),
        };
        let due = due.max(self.pause);
        if now < due {
            return Err(due);
        }
        self.wanted = false;
        self.asked = Some(std::mem::take(&mut self.waiting));
        Ok(())
    }

    /// The server has answered, after so long.
    pub(super) fn answered(&mut self, outcome: Outcome, took: Duration, now: Instant, chance: f64) {
        let asked = self.asked.take().unwrap_or_default();
        match outcome {
            Outcome::Positioned(count, more) => {
                // Whatever had published before it was asked has a position now, be it from here or not.
                self.keepalive = if more { now } else { now + KEEPALIVE };
                self.won |= count > 0;
                self.leads |= count > 0;
                self.due = self.when(now, chance);
                self.pause = if count > 1 && !more { now + ROUND.saturating_sub(took) } else { now };
            }
            Outcome::Busy => {
                self.waiting.extend(asked);
                self.keepalive = now + KEEPALIVE;
                self.pause = now + BUSY;
                self.due = self.when(now, chance);
            }
        }
    }

    fn when(&self, now: Instant, chance: f64) -> Instant {
        if self.leads { now } else { now + GRACE + GRACE.mul_f64(2.0 * chance) }
    }
}

#[cfg(test)]
mod tests;
