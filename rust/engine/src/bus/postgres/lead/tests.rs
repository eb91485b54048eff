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
    assert_eq!([9, 10, 14, 15, 19, 20].map(|number| snapshot.sees(number)), [true, false, true, false, true, false]);
    assert_eq!(Snapshot::parse("7:7:"), Some(Snapshot { end: 7, open: vec![] }));
    assert_eq!(["-", "", "7:7", "a:b:c", "1:2:x"].map(Snapshot::parse), [None, None, None, None, None]);
}
