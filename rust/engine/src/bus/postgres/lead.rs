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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Workers and a server, by the millisecond.
    struct World {
        start: Instant,
        now: u64,
        workers: Vec<Option<Worker>>,
        /// What is on its way to a worker, with the time of its arrival.
        sent: Vec<(u64, usize, Told)>,
        /// By transaction: when it published, and when it was positioned.
        events: Vec<(u64, Option<u64>)>,
        /// Who is at it, and until when.
        busy: Option<(usize, u64)>,
        /// How often each asked without being asked to by the clock alone.
        asked: Vec<usize>,
        chances: std::vec::IntoIter<f64>,
    }

    struct Worker {
        lead: Lead,
        /// When the server will answer, what, and for how many transactions.
        answer: Option<(u64, Outcome)>,
    }

    #[derive(Clone)]
    enum Told {
        Published(u64),
        Positioned(usize, Snapshot),
    }

    impl World {
        fn new(workers: usize, chances: Vec<f64>) -> World {
            let start = Instant::now();
            let worker = |_| Some(Worker { lead: Lead::new(start), answer: None });
            let (workers, asked) = ((0..workers).map(worker).collect(), vec![0; workers]);
            let chances = chances.into_iter();
            World { start, now: 0, workers, sent: Vec::new(), events: Vec::new(), busy: None, asked, chances }
        }

        fn chance(&mut self) -> f64 {
            self.chances.next().unwrap_or(0.5)
        }

        fn tell(&mut self, told: &Told) {
            for to in 0..self.workers.len() {
                // Nobody hears anything before what was told earlier.
                let earlier = self.sent.iter().filter(|(_, other, _)| *other == to).map(|(at, ..)| *at).max();
                let at = (self.now + (self.chance() * 3.0) as u64).max(earlier.unwrap_or(0));
                self.sent.push((at, to, told.clone()));
            }
        }

        fn publish(&mut self) {
            self.events.push((self.now, None));
            self.tell(&Told::Published(self.events.len() as u64 - 1));
        }

        fn step(&mut self) {
            self.now += 1;
            let now = self.start + Duration::from_millis(self.now);
            for (_, to, told) in self.sent.extract_if(.., |(at, ..)| *at <= self.now).collect::<Vec<_>>() {
                let chance = self.chance();
                let Some(worker) = &mut self.workers[to] else { continue };
                match told {
                    Told::Published(transaction) => worker.lead.published(transaction, now, chance),
                    Told::Positioned(by, _) if by == to => {}
                    Told::Positioned(by, snapshot) => worker.lead.positioned(Some(&snapshot), by < to, now, chance),
                }
            }
            for at in 0..self.workers.len() {
                self.turn(at, now);
            }
        }

        fn turn(&mut self, at: usize, now: Instant) {
            let chance = self.chance();
            let Some(worker) = &mut self.workers[at] else { return };
            if let Some((due, outcome)) = worker.answer {
                if due > self.now {
                    return;
                }
                worker.answer = None;
                worker.lead.answered(outcome, Duration::from_millis(1), now, chance);
                if self.busy.is_some_and(|(by, _)| by == at) {
                    self.busy = None;
                }
                if let Outcome::Positioned(1.., _) = outcome {
                    let snapshot = Snapshot { end: self.events.len() as u64, open: vec![] };
                    let open = (0..).zip(&self.events).filter(|(_, (_, positioned))| positioned.is_none());
                    let snapshot = Snapshot { open: open.map(|(transaction, _)| transaction).collect(), ..snapshot };
                    self.tell(&Told::Positioned(at, snapshot));
                }
                return;
            }
            let reason = !worker.lead.waiting.is_empty();
            if worker.lead.next(now).is_err() {
                return;
            }
            self.asked[at] += usize::from(reason);
            let takes = 1 + (chance * 4.0) as u64;
            let busy = self.busy.filter(|(_, until)| *until > self.now);
            let outcome = if busy.is_some() {
                Outcome::Busy
            } else {
                let new = self.events.iter_mut().filter(|(_, positioned)| positioned.is_none());
                let count = new.map(|(_, positioned)| *positioned = Some(self.now)).count();
                self.busy = Some((at, self.now + takes));
                Outcome::Positioned(count as i64, false)
            };
            if let Some(worker) = &mut self.workers[at] {
                worker.answer = Some((self.now + takes, outcome));
            }
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Publish,
        Wait(u8),
        /// One of the workers is gone, unless it is the last.
        Kill(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => Just(Step::Publish),
            6 => (1..60u8).prop_map(Step::Wait),
            1 => any::<prop::sample::Index>().prop_map(Step::Kill),
        ];
        prop::collection::vec(step, 1..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_event_is_positioned_soon_whoever_dies(
            workers in 1..5usize, steps in steps(), chances in prop::collection::vec(0.0..1.0f64, 2000),
        ) {
            let mut world = World::new(workers, chances);
            for step in steps {
                match step {
                    Step::Publish => world.publish(),
                    Step::Wait(steps) => (0..steps).for_each(|_| world.step()),
                    Step::Kill(which) => {
                        let alive: Vec<_> = (0..workers).filter(|at| world.workers[*at].is_some()).collect();
                        if alive.len() > 1 {
                            world.workers[*which.get(&alive)] = None;
                        }
                    }
                }
            }
            (0..400).for_each(|_| world.step());
            for (published, positioned) in world.events {
                let took = positioned.map(|at| at - published);
                prop_assert!(took.is_some_and(|took| took <= 170), "after {took:?}");
            }
        }

        #[test]
        fn soon_one_alone_asks_and_at_once(
            workers in 2..5usize, chances in prop::collection::vec(0.0..1.0f64, 20_000), pause in 12..60u8,
        ) {
            let mut world = World::new(workers, chances);
            let round = |world: &mut World| {
                world.publish();
                (0..pause).for_each(|_| world.step());
            };
            (0..30).for_each(|_| round(&mut world));
            let before = std::mem::replace(&mut world.asked, vec![0; workers]);
            (0..30).for_each(|_| round(&mut world));
            prop_assert_eq!(world.asked.iter().filter(|asked| **asked > 0).count(), 1, "{:?} {:?}", before, world.asked);
            let slowest = world.events[30..].iter().map(|(published, at)| at.map_or(999, |at| at - published)).max();
            prop_assert!(slowest <= Some(12), "{slowest:?}");
        }
    }

    #[test]
    fn a_snapshot_says_who_is_done() {
        let snapshot = Snapshot::parse("10:20:10,15").expect("a snapshot");
        assert_eq!(
            [9, 10, 14, 15, 19, 20].map(|number| snapshot.sees(number)),
            [true, false, true, false, true, false]
        );
        assert_eq!(Snapshot::parse("7:7:"), Some(Snapshot { end: 7, open: vec![] }));
        assert_eq!(["-", "", "7:7", "a:b:c", "1:2:x"].map(Snapshot::parse), [None, None, None, None, None]);
    }
}
