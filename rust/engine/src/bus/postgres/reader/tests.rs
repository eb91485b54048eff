use proptest::prelude::*;

use super::*;

const CHANNELS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many events, which are told of by name or not.
    Publish(usize, usize, bool),
    /// One notification arrives.
    Hear,
    Watch(usize),
    Unwatch(usize),
    /// So many rows of what is to be read next, and whether the connection is lost before the page is done.
    Page(usize, bool),
    Disconnect,
    /// And whether something is positioned, and told of, before the reader knows what the server said of its end.
    Connect(bool),
    /// All but the last so many of a channel are trimmed.
    Trim(usize, usize),
    /// The server has lost what it knew, or says that it is another one.
    Renew(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let channel = || 0..CHANNELS;
    let step = prop_oneof![
        8 => (channel(), 1..4usize, any::<bool>()).prop_map(|(channel, count, named)| Step::Publish(channel, count, named)),
        8 => Just(Step::Hear),
        3 => channel().prop_map(Step::Watch),
        1 => channel().prop_map(Step::Unwatch),
        8 => (1..4usize, prop::bool::weighted(0.1)).prop_map(|(rows, lost)| Step::Page(rows, lost)),
        1 => Just(Step::Disconnect),
        3 => any::<bool>().prop_map(Step::Connect),
        1 => (channel(), 0..3usize).prop_map(|(channel, kept)| Step::Trim(channel, kept)),
        1 => any::<bool>().prop_map(Step::Renew),
    ];
    prop::collection::vec(step, 1..120)
}

/// The server as it is, and what the process that reads made of it.
struct World {
    reader: Reader,
    now: Instant,
    epoch: u64,
    end: Offset,
    rows: Vec<(Offset, Arc<str>)>,
    trimmed: [Offset; CHANNELS],
    told: std::collections::VecDeque<Positioned>,
    is_connected: bool,
    next: Option<Read>,
    /// By channel that is watched: what was due since, in the order of the bus, and what came.
    due: [Option<Vec<Came>>; CHANNELS],
    came: [Vec<Came>; CHANNELS],
    /// Watched while there was no connection: what comes from the next one on is due.
    waits: [bool; CHANNELS],
    /// What was published before, as the server says who is asked then; whoever watches passes it by.
    old: [(u64, Offset); CHANNELS],
}

#[derive(Clone, Debug, PartialEq)]
enum Came {
    Event(u64, Offset),
    Gap,
}

fn name(channel: usize) -> Arc<str> {
    format!("c{channel}").into()
}

fn number(name: &str) -> usize {
    name[1..].parse().expect("a channel's number")
}

impl World {
    fn new() -> World {
        World {
            reader: Reader::default(),
            now: Instant::now(),
            epoch: 1,
            end: 0,
            rows: Vec::new(),
            trimmed: [0; CHANNELS],
            told: Default::default(),
            is_connected: false,
            next: None,
            due: Default::default(),
            came: Default::default(),
            waits: Default::default(),
            old: Default::default(),
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Publish(channel, count, named) => {
                let after = self.end;
                for _ in 0..count {
                    self.end += 1;
                    self.rows.push((self.end, name(channel)));
                    if let (Some(due), false) = (&mut self.due[channel], self.waits[channel]) {
                        due.push(Came::Event(self.epoch, self.end));
                    }
                }
                let channels = named.then(|| vec![name(channel).to_string()]);
                if self.is_connected {
                    self.told.push_back(Positioned { epoch: self.epoch, after, last: self.end, channels });
                }
            }
            Step::Hear => {
                if let Some(told) = self.told.pop_front() {
                    assert_eq!(self.reader.positioned(&told, self.now), Ok(()));
                }
            }
            Step::Watch(channel) => {
                self.reader.watch(&name(channel));
                if self.due[channel].is_none() {
                    self.due[channel] = Some(Vec::new());
                    self.came[channel].clear();
                    self.waits[channel] = !self.is_connected;
                    self.old[channel] = (self.epoch, self.end);
                }
            }
            Step::Unwatch(channel) => {
                self.reader.unwatch(&name(channel));
                self.due[channel] = None;
            }
            Step::Page(rows, lost) => self.page(rows, lost),
            Step::Disconnect => self.disconnect(),
            Step::Connect(early) => self.connect(early),
            Step::Trim(channel, kept) => {
                let own: Vec<_> = self.rows.iter().filter(|row| row.1 == name(channel)).map(|row| row.0).collect();
                if let Some(last) = own.len().checked_sub(kept + 1).map(|at| own[at]) {
                    self.trimmed[channel] = last;
                    self.rows.retain(|row| row.1 != name(channel) || row.0 > last);
                }
            }
            Step::Renew(admits) => {
                self.disconnect();
                self.rows.clear();
                let clock = self.end;
                match self.reader.known.as_ref().and_then(|known| known.cursor.checked_sub(1)) {
                    // Restored in a way that leaves no mark, but for its end, which is behind what was read.
                    Some(end) if !admits => {
                        self.end = end;
                        self.connect(false);
                    }
                    _ => self.epoch += 1,
                }
                self.end = clock + 1000;
                self.trimmed = [self.end; CHANNELS];
            }
        }
    }

    fn connect(&mut self, early: bool) {
        if self.is_connected {
            return;
        }
        self.is_connected = true;
        let end = self.end;
        if early {
            self.run(Step::Publish(0, 1, true));
            self.run(Step::Hear);
        }
        for gap in self.reader.connected(self.epoch, end, self.now) {
            self.came[number(&gap)].push(Came::Gap);
        }
        self.waits = Default::default();
    }

    fn disconnect(&mut self) {
        self.reader.disconnected();
        self.is_connected = false;
        self.told.clear();
        self.next = None;
    }

    /// As the one who does the reading: rows, then what was trimmed; gaps are told, then events.
    fn page(&mut self, most: usize, lost: bool) {
        if !self.is_connected {
            return;
        }
        let Some(read) = self.next.take().or_else(|| self.reader.next(self.now)) else { return };
        let is_asked =
            |row: &&(Offset, Arc<str>)| read.after < row.0 && row.0 <= read.through && read.channels.contains(&row.1);
        let rows: Vec<_> = self.rows.iter().filter(is_asked).take(most).cloned().collect();
        for channel in read.channels.iter() {
            let trimmed = self.trimmed[number(channel)];
            if trimmed > read.after && self.reader.trimmed(channel, trimmed) {
                self.came[number(channel)].push(Came::Gap);
            }
        }
        for (at, (offset, channel)) in rows.iter().enumerate() {
            if lost && at + 1 == rows.len() {
                return self.disconnect();
            }
            let (epoch, old) = self.old[number(channel)];
            let taken = self.reader.take(channel, *offset);
            if let Some(channel) = taken.filter(|_| epoch != self.epoch || old < *offset) {
                self.came[number(&channel)].push(Came::Event(self.epoch, *offset));
            }
        }
        let through = rows.last().filter(|_| rows.len() == most).map_or(read.through, |row| row.0);
        self.next = self.reader.handed(through, self.now);
    }
}

proptest! {
    #[test]
    fn every_event_comes_once_and_in_order_or_there_is_a_gap(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        world.connect(false);
        while !world.told.is_empty() {
            world.run(Step::Hear);
        }
        while world.next.is_some() || world.reader.known.as_ref().is_some_and(|known| known.cursor < known.end) {
            world.page(2, false);
        }
        prop_assert_eq!(world.reader.behind(), None);
        for (due, came) in world.due.iter().zip(&world.came) {
            let Some(due) = due else { continue };
            let mut left = due.iter();
            let mut is_gap = false;
            for one in came {
                match one {
                    Came::Gap => is_gap = true,
                    // A second time, or out of order, it is not found behind what was found.
                    event if is_gap => {
                        prop_assert!(left.any(|due| due == event), "{event:?} of {due:?} in {came:?}");
                        is_gap = false;
                    }
                    event => prop_assert_eq!(left.next(), Some(event), "{:?} {:?}", due, came),
                }
            }
            prop_assert!(is_gap || left.next().is_none(), "{due:?} {came:?}");
        }
    }
}

#[test]
fn a_channel_that_nobody_watches_costs_no_reading() {
    let now = Instant::now();
    let mut reader = Reader::default();
    reader.watch(&name(1));
    assert!(reader.connected(7, 10, now).is_empty());
    let told = |after, last, channel| Positioned { epoch: 7, after, last, channels: Some(vec![format!("c{channel}")]) };
    assert_eq!(reader.positioned(&told(10, 12, 0), now), Ok(()));
    assert_eq!(reader.next(now), None);
    assert_eq!(reader.positioned(&told(12, 13, 1), now), Ok(()));
    assert_eq!(reader.next(now), Some(Read { channels: [name(1)].into(), after: 12, through: 13 }));
    assert_eq!((reader.next(now), reader.behind()), (None, Some(now)));
    assert_eq!((reader.handed(13, now), reader.behind()), (None, None));
    assert_eq!(reader.positioned(&Positioned { epoch: 8, ..told(13, 14, 1) }, now), Err(NewEpoch));
}
