//! A server that loses, trims and forgets, a connection that breaks, and what a process makes of it: nothing is lost without a
//! gap, nothing comes twice, order is kept, and a gap is told only where something may have been lost.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const CHANNELS: usize = 3;
/// What a pointer that is forgotten cannot be beyond: so long ago.
const SURE: Offset = 10_000;
/// When pointers are forgotten.
const KEPT: Offset = 20_000;

#[derive(Clone, Debug)]
enum Op {
    Publish(usize),
    /// The channel keeps so many entries.
    Trim(usize, usize),
    /// Time passes; what is too old is forgotten.
    Pass(Offset),
    /// Everything is lost.
    Flush,
    /// Somebody else has found that something is lost; all that this process has not heard yet is there.
    Renew,
    /// The connection breaks, and all that is on its way.
    Cut,
    Connect,
    Want(usize),
    Unwant(usize),
    /// The process hears so many of the things that are on their way.
    Hear(usize),
    Beat,
}

fn renewing() -> impl Strategy<Value = Vec<Op>> {
    let channel = || 0..CHANNELS;
    let op = prop_oneof![
        8 => channel().prop_map(Op::Publish),
        2 => Just(Op::Renew),
        2 => Just(Op::Cut),
        3 => Just(Op::Connect),
        4 => channel().prop_map(Op::Want),
        8 => (1..8usize).prop_map(Op::Hear),
        3 => Just(Op::Beat),
    ];
    vec(op, 1..120)
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let channel = || 0..CHANNELS;
    let op = prop_oneof![
        8 => channel().prop_map(Op::Publish),
        2 => (channel(), 0..3usize).prop_map(|(channel, kept)| Op::Trim(channel, kept)),
        1 => prop_oneof![1..100u64, SURE - 5..SURE + 5, KEPT - 5..2 * KEPT].prop_map(Op::Pass),
        1 => Just(Op::Flush),
        2 => Just(Op::Cut),
        3 => Just(Op::Connect),
        4 => channel().prop_map(Op::Want),
        1 => channel().prop_map(Op::Unwant),
        8 => (1..8usize).prop_map(Op::Hear),
        3 => Just(Op::Beat),
    ];
    vec(op, 1..120)
}

/// What is told to a listener, in order.
#[derive(Clone, Copy)]
enum Told {
    Subscribed(usize),
    Unsubscribed(usize),
    Event { channel: usize, epoch: u64, offset: Offset, previous: Offset },
    Pulse { epoch: u64, end: Offset },
}

#[derive(Default)]
struct Server {
    now: Offset,
    epoch: u64,
    start: Offset,
    last: Offset,
    streams: [Vec<(Offset, Offset)>; CHANNELS],
    pointers: [Option<Offset>; CHANNELS],
    subscribed: [bool; CHANNELS],
    told: VecDeque<Told>,
}

impl Server {
    fn tail(&self, channel: usize) -> Offset {
        self.pointers[channel].unwrap_or(self.now.saturating_sub(SURE))
    }

    fn publish(&mut self, channel: usize) -> Offset {
        let previous = self.tail(channel);
        let offset = (self.last + 1).max(self.now);
        self.last = offset;
        self.streams[channel].push((offset, previous));
        self.pointers[channel] = Some(offset);
        if self.subscribed[channel] {
            self.told.push_back(Told::Event { channel, epoch: self.epoch, offset, previous });
        }
        offset
    }

    fn pass(&mut self, time: Offset) {
        self.now = self.now.max(self.last) + time;
        for channel in 0..CHANNELS {
            if self.pointers[channel].is_some_and(|last| last + KEPT < self.now) {
                self.pointers[channel] = None;
                self.streams[channel].clear();
            }
        }
    }

    fn pulse(&mut self) {
        if self.last < self.now - SURE / 4 {
            self.last = self.now;
        }
    }

    fn renew(&mut self) {
        self.epoch += 1;
        self.start = self.last.max(self.now);
        self.last = self.start;
    }

    fn flush(&mut self) {
        self.renew();
        self.streams = Default::default();
        self.pointers = Default::default();
    }
}

/// What a channel's subscriber went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Event(u64, Offset),
    Gap,
}

/// A process, as a session drives it.
struct Process {
    names: Vec<Arc<str>>,
    cursors: Cursors,
    connected: bool,
    awaited: usize,
    sure: Offset,
    heard: [Vec<Heard>; CHANNELS],
    /// Since when its subscriber is owed everything: epoch and offset.
    owed: [Option<(u64, Offset)>; CHANNELS],
    live: [Option<watch::Receiver<Option<Offset>>>; CHANNELS],
}

impl Process {
    fn new() -> Process {
        let names = (0..CHANNELS).map(|channel| channel.to_string().into()).collect();
        let (heard, owed, live) = Default::default();
        let cursors = Cursors::default();
        Process { names, cursors, connected: false, awaited: 0, sure: 0, heard, owed, live }
    }

    fn number(name: &str) -> usize {
        name.parse().expect("a number")
    }

    fn begin(&mut self, server: &Server) {
        for name in self.cursors.begin(server.epoch, server.start, server.last) {
            self.heard[Self::number(&name)].push(Heard::Gap);
        }
    }

    fn connect(&mut self, server: &mut Server) {
        if !self.connected {
            (self.connected, self.awaited) = (true, 0);
            server.pulse();
            self.sure = server.now.saturating_sub(SURE);
            self.begin(server);
            self.settle(server);
        }
    }

    fn cut(&mut self, server: &mut Server) {
        if self.connected {
            self.connected = false;
            server.told.clear();
            server.subscribed = Default::default();
            self.cursors.lost();
        }
    }

    fn want(&mut self, channel: usize) {
        match self.cursors.want(&self.names[channel]) {
            Ok(offset) => self.owe(channel, offset),
            Err(live) => self.live[channel] = Some(live),
        }
    }

    fn unwant(&mut self, channel: usize) {
        self.cursors.unwant(&self.names[channel]);
        (self.owed[channel], self.live[channel]) = (None, None);
        self.heard[channel].clear();
    }

    fn owe(&mut self, channel: usize, offset: Offset) {
        if self.owed[channel].is_none() {
            self.owed[channel] = Some((self.cursors.epoch, offset));
            self.heard[channel].clear();
        }
    }

    fn settle(&mut self, server: &mut Server) {
        if !self.connected || self.awaited > 0 {
            return;
        }
        let (subscribe, unsubscribe) = self.cursors.changes();
        self.awaited = subscribe.len() + unsubscribe.len();
        for channel in unsubscribe.iter().map(|name| Self::number(name)) {
            server.subscribed[channel] = false;
            server.told.push_back(Told::Unsubscribed(channel));
        }
        for channel in subscribe.iter().map(|name| Self::number(name)) {
            server.subscribed[channel] = true;
            server.told.push_back(Told::Subscribed(channel));
        }
        if self.awaited > 0 {
            return;
        }
        for (name, at) in self.cursors.take_behind() {
            let pointer = server.pointers[Self::number(&name)];
            if pointer.map_or(at >= self.sure, |pointer| pointer <= at) {
                self.cursors.caught_up(&name, at);
            } else {
                self.catch_up(server, Self::number(&name));
            }
        }
        if self.cursors.has_fresh() {
            self.beat(server);
        }
    }

    /// Those who waited are owed what comes from now on.
    fn owe_live(&mut self) {
        for channel in 0..CHANNELS {
            let since = self.live[channel].as_ref().and_then(|live| *live.borrow());
            if let Some(since) = since {
                self.owe(channel, since);
            }
        }
    }

    fn beat(&self, server: &mut Server) {
        if self.connected && self.awaited == 0 {
            server.pulse();
            server.told.push_back(Told::Pulse { epoch: server.epoch, end: server.last });
        }
    }

    fn catch_up(&mut self, server: &Server, channel: usize) {
        let name = self.names[channel].clone();
        self.agrees(server, server.epoch);
        while let Some(after) = self.cursors.cursor(&name) {
            // The smallest pages there are.
            let entries: Vec<_> =
                server.streams[channel].iter().filter(|(offset, _)| *offset > after).take(2).copied().collect();
            let is_last = entries.len() < 2;
            let end = is_last.then_some(server.last);
            let steps = self.cursors.follow(&name, entries.iter().copied(), server.tail(channel), end);
            self.heard[channel].extend(steps.into_iter().map(|step| match step {
                Step::Gap => Heard::Gap,
                Step::HandOver(entry) => Heard::Event(server.epoch, entries[entry].0),
            }));
            if is_last {
                return;
            }
        }
    }

    fn agrees(&mut self, server: &Server, epoch: u64) -> bool {
        if epoch != self.cursors.epoch {
            self.begin(server);
        }
        epoch == self.cursors.epoch
    }

    fn hear(&mut self, server: &mut Server) {
        match server.told.pop_front() {
            None => return,
            Some(Told::Subscribed(channel)) => {
                self.awaited -= 1;
                self.cursors.subscribed(&self.names[channel]);
            }
            Some(Told::Unsubscribed(channel)) => {
                self.awaited -= 1;
                self.cursors.unsubscribed(&self.names[channel]);
            }
            Some(Told::Pulse { epoch, end }) => {
                if self.agrees(server, epoch) {
                    self.cursors.pulse(end);
                }
            }
            Some(Told::Event { channel, epoch, offset, previous }) => {
                if self.agrees(server, epoch) {
                    self.event(server, channel, offset, previous);
                }
            }
        }
        self.owe_live();
        self.settle(server);
        self.owe_live();
    }

    fn event(&mut self, server: &Server, channel: usize, offset: Offset, previous: Offset) {
        let name = self.names[channel].clone();
        let mut verdict = self.cursors.judge(&name, offset, previous);
        if verdict == Verdict::Missed {
            let epoch = self.cursors.epoch;
            self.catch_up(server, channel);
            if self.cursors.epoch != epoch {
                // All that there is was read.
                return;
            }
            verdict = self.cursors.judge(&name, offset, previous);
        }
        match verdict {
            Verdict::Old => {}
            Verdict::Next => self.heard[channel].push(Heard::Event(self.cursors.epoch, offset)),
            Verdict::Missed => {
                self.cursors.skip_to(&name, offset);
                self.heard[channel].extend([Heard::Gap, Heard::Event(self.cursors.epoch, offset)]);
            }
        }
    }
}

/// What must hold of a subscriber that is owed everything from `since` on.
fn check(since: (u64, Offset), accepted: &[(u64, Offset)], heard: &[Heard], may_gap: bool) {
    let events: Vec<_> = heard
        .iter()
        .filter_map(|heard| match heard {
            Heard::Event(epoch, offset) => Some((*epoch, *offset)),
            Heard::Gap => None,
        })
        .collect();
    assert!(events.windows(2).all(|pair| pair[0] < pair[1]), "twice, or out of order: {events:?}");
    assert!(may_gap || !heard.contains(&Heard::Gap), "a gap where nothing was lost: {heard:?}");
    // Between two things that were heard nothing is missing, unless a gap stands there.
    let mut owed = accepted.iter().filter(|event| **event > since).peekable();
    let mut is_told = false;
    for one in heard {
        match one {
            Heard::Gap => is_told = true,
            Heard::Event(epoch, offset) => {
                let event = (*epoch, *offset);
                while let Some(missing) = owed.next_if(|owed| **owed < event) {
                    assert!(is_told, "{missing:?} is lost, and nobody was told: {heard:?}");
                }
                owed.next_if(|owed| **owed == event);
                is_told = false;
            }
        }
    }
    let missing: Vec<_> = owed.collect();
    assert!(is_told || missing.is_empty(), "{missing:?} are lost, and nobody was told: {heard:?}");
}

/// All of it happens, and at last everything arrives; what was accepted in each channel, and whether a gap may have been told.
fn play(ops: Vec<Op>, server: &mut Server, process: &mut Process) -> ([Vec<(u64, Offset)>; CHANNELS], bool) {
    let mut accepted: [Vec<(u64, Offset)>; CHANNELS] = Default::default();
    let mut may_gap = false;
    for op in ops {
        match op {
            Op::Publish(channel) => {
                let offset = server.publish(channel);
                accepted[channel].push((server.epoch, offset));
            }
            Op::Trim(channel, kept) => {
                let surplus = server.streams[channel].len().saturating_sub(kept);
                server.streams[channel].drain(..surplus);
                may_gap |= surplus > 0;
            }
            Op::Pass(time) => {
                let is_long = time >= SURE - 5;
                // Nobody waits for an answer that long.
                if is_long && !server.told.is_empty() {
                    process.cut(server);
                }
                server.pass(time);
                may_gap |= is_long && !process.connected;
                if is_long {
                    process.beat(server);
                    process.hear(server);
                }
            }
            Op::Flush => {
                server.flush();
                may_gap = true;
            }
            Op::Renew => {
                server.renew();
                may_gap = true;
            }
            Op::Cut => process.cut(server),
            Op::Connect => process.connect(server),
            Op::Want(channel) => process.want(channel),
            Op::Unwant(channel) => process.unwant(channel),
            Op::Hear(count) => (0..count).for_each(|_| process.hear(server)),
            Op::Beat => process.beat(server),
        }
        process.settle(server);
    }
    process.connect(server);
    process.settle(server);
    while !server.told.is_empty() {
        process.hear(server);
    }
    process.beat(server);
    process.hear(server);
    (accepted, may_gap)
}

fn world() -> (Server, Process) {
    (Server { now: 5 * KEPT, epoch: 1, start: 4 * KEPT, last: 4 * KEPT, ..Server::default() }, Process::new())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_without_a_gap_and_nothing_comes_twice(ops in ops()) {
        let (mut server, mut process) = world();
        let (accepted, may_gap) = play(ops, &mut server, &mut process);
        for ((since, accepted), heard) in process.owed.iter().zip(&accepted).zip(&process.heard) {
            if let Some(since) = since {
                check(*since, accepted, heard, may_gap);
            }
        }
        // The end is the server's, as far as it goes.
        prop_assert_eq!(process.cursors.position(), Position { epoch: server.epoch, offset: server.last });
    }

    #[test]
    fn what_the_server_still_has_is_heard_whatever_the_epoch(ops in renewing()) {
        let (mut server, mut process) = world();
        let (accepted, _) = play(ops, &mut server, &mut process);
        for ((since, accepted), heard) in process.owed.iter().zip(&accepted).zip(&process.heard) {
            let Some((_, since)) = since else { continue };
            let offsets = accepted.iter().map(|(_, offset)| *offset).filter(|offset| offset > since);
            let heard = heard.iter().filter_map(|heard| match heard {
                Heard::Event(_, offset) => Some(*offset),
                Heard::Gap => None,
            });
            prop_assert_eq!(heard.collect::<Vec<_>>(), offsets.collect::<Vec<_>>());
        }
    }
}

fn live(names: &[Arc<str>], end: Offset) -> Cursors {
    let mut cursors = Cursors::default();
    cursors.begin(1, 0, end);
    for name in names {
        assert!(cursors.want(name).is_err());
    }
    cursors.changes();
    names.iter().for_each(|name| cursors.subscribed(name));
    cursors.pulse(end);
    cursors
}

#[test]
fn a_quiet_channel_follows_the_busy_ones_at_no_cost() {
    let (quiet, busy): (Arc<str>, Arc<str>) = ("quiet".into(), "busy".into());
    let mut cursors = live(&[quiet.clone(), busy.clone()], 10);
    assert_eq!(cursors.judge(&busy, 11, 10), Verdict::Next);
    assert_eq!(cursors.want(&quiet).ok(), Some(10));
    cursors.pulse(11);
    assert_eq!(cursors.want(&quiet).ok(), Some(11));
    // What stood at the server before the pulse was heard, or never was.
    assert_eq!(cursors.judge(&quiet, 11, 5), Verdict::Old);
    assert_eq!(cursors.judge(&quiet, 20, 11), Verdict::Next);
    assert_eq!(cursors.judge(&quiet, 30, 25), Verdict::Missed);
}

#[test]
fn a_channel_that_is_given_up_while_it_is_subscribed_is_neither_lost_nor_kept() {
    let name: Arc<str> = "c".into();
    let mut cursors = Cursors::default();
    assert!(cursors.want(&name).is_err());
    assert_eq!(cursors.changes(), (vec![name.clone()], vec![]));
    cursors.unwant(&name);
    assert_eq!(cursors.changes(), (vec![], vec![]));
    cursors.subscribed(&name);
    assert_eq!(cursors.changes(), (vec![], vec![name.clone()]));
    // Wanted again, it is not live before a confirmation that follows.
    let live = cursors.want(&name).expect_err("not live");
    cursors.pulse(7);
    assert_eq!(*live.borrow(), None);
    assert_eq!(cursors.judge(&name, 8, 7), Verdict::Old);
    cursors.unsubscribed(&name);
    assert_eq!(cursors.changes(), (vec![name.clone()], vec![]));
    cursors.subscribed(&name);
    cursors.pulse(9);
    assert_eq!(*live.borrow(), Some(9));
    cursors.unwant(&name);
    cursors.changes();
    cursors.unsubscribed(&name);
    cursors.changes();
    assert!(cursors.channels.is_empty());
}

#[test]
fn nothing_is_kept_of_those_who_come_and_go_while_the_bus_is_away() {
    let (quiet, other): (Arc<str>, Arc<str>) = ("quiet".into(), "other".into());
    let mut cursors = live(std::slice::from_ref(&quiet), 10);
    cursors.lost();
    for _ in 0..100 {
        assert!(cursors.want(&other).is_err());
        cursors.unwant(&other);
    }
    assert_eq!((cursors.channels.len(), cursors.changed.len()), (1, 1));
    assert_eq!(cursors.changes(), (vec![quiet], vec![]));
}

#[test]
fn the_witness_is_the_last_of_the_epoch() {
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    let mut cursors = live(&[a.clone(), b.clone()], 10);
    let witness = |cursors: &Cursors| {
        let Witness { epoch, channel, offset } = cursors.witness();
        (epoch, channel.to_string(), offset)
    };
    cursors.judge(&a, 12, 10);
    cursors.accepted(Position { epoch: 1, offset: 11 }, &b);
    assert_eq!(witness(&cursors), (1, "a".to_owned(), 12));
    cursors.accepted(Position { epoch: 2, offset: 99 }, &b);
    assert_eq!(witness(&cursors), (1, "a".to_owned(), 12));
    cursors.begin(2, 20, 20);
    assert_eq!(witness(&cursors), (1, "a".to_owned(), 12));
    cursors.judge(&b, 21, 0);
    assert_eq!(witness(&cursors), (2, "b".to_owned(), 21));
}
