//! One session: from a connection to its loss, everything that the server says, in the order in which it did it.
//!
//! Nothing else is heard while something that was missed is read: order comes from doing one thing after the other, and what waits
//! meanwhile waits at the server.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, cmd};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::cursors::{Step, Verdict};
use super::link::{AT_ONCE, Inbound, Link, Owned, PULSE, READ, SILENCE, Told, reason, said, silent};
use super::{Shared, micros, number, publisher};
use crate::bus::BoxFuture;
use crate::event::{Offset, Position};

/// How often both connections are tried.
const BEAT: Duration = Duration::from_millis(500);
/// Channels that are read at once, and how much of each.
const READS: usize = 8;
const READ_BYTES: usize = 256 << 10;
const READ_EVENTS: usize = 1_000;
/// Events that are handed over before others get their turn.
const TURN: usize = 32;

pub(super) struct Session {
    shared: Arc<Shared>,
    link: Link,
    driver: Owned<()>,
    inbound: Option<Inbound>,
    /// Channels of which the server knows no last event have had none since; at the beginning of this session.
    sure: Offset,
    /// Subscriptions that are not confirmed yet.
    awaited: usize,
    pulse: Option<Pulse>,
    heard: Instant,
    is_live: bool,
}

/// A pulse on its way: it is answered on one connection and told on the other.
struct Pulse {
    sent: Instant,
    answer: Option<BoxFuture<'static, Result<(), String>>>,
    is_told: bool,
}

/// Some entries of a stream, as they are.
pub(super) struct Page {
    pub(super) epoch: u64,
    /// The bus's end.
    pub(super) last: Offset,
    /// The channel's last offset, or what it cannot be beyond.
    pub(super) tail: Offset,
    /// There are others behind these.
    pub(super) more: bool,
    /// So many are not ours.
    pub(super) foreign: usize,
    /// Offset, that of the one before, and text.
    pub(super) entries: Vec<(Offset, Offset, Vec<u8>)>,
}

impl Page {
    pub(super) async fn read(
        shared: &Shared,
        link: &Link,
        channel: &str,
        after: Offset,
        limit: usize,
        bytes: usize,
    ) -> Result<Page, RedisError> {
        let age = micros(shared.settings.age);
        let numbers = [shared.sure(), after, age, limit as u64, bytes as u64].map(|number| number.to_string());
        let mut args = shared.args();
        args.push(channel);
        args.extend(numbers.iter().map(String::as_str));
        let (epoch, last, tail, more, foreign, entries): (String, _, _, u8, _, _) = link.run(&READ, &args).await?;
        Ok(Page { epoch: number(&epoch, 16).unwrap_or_default(), last, tail, more: more > 0, foreign, entries })
    }
}

impl Session {
    /// Connects; nothing is heard yet.
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Session, String> {
        let tls = shared.tls().await?;
        let (link, driver) = Link::open(&shared.settings, tls.as_ref()).await?;
        let (epoch, start, end, now) = pulse(&shared, link.clone(), "").await?;
        shared.begin(epoch, start, end);
        if link.evicts && shared.first.lock().is_some() {
            shared.warn("evicts keys (maxmemory-policy): events that somebody missed may be lost, and nobody told");
        }
        publisher::attempt(&shared, &link).await?;
        let inbound = match &shared.receiver {
            Some(_) => Some(Inbound::open(&shared.settings, tls.as_ref()).await?),
            None => None,
        };
        let heard = Instant::now();
        let (pulse, is_live) = (None, false);
        let sure = now.saturating_sub(shared.sure());
        Ok(Session { shared, link, driver, inbound, sure, awaited: 0, pulse, heard, is_live })
    }

    /// Runs until the connection is lost, and says how.
    pub(super) async fn run(mut self) -> String {
        self.shared.link.send_replace(Some(self.link.clone()));
        let lost = self.hear().await;
        self.shared.link.send_replace(None);
        lost.err().unwrap_or_default()
    }

    async fn hear(&mut self) -> Result<(), String> {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_suspect = false;
        match &mut self.inbound {
            Some(inbound) => {
                inbound.subscribe(std::slice::from_ref(&self.shared.pulse_name)).await?;
                self.awaited = 1;
            }
            None => self.go_live(),
        }
        loop {
            self.settle().await?;
            tokio::select! {
                told = next(&mut self.inbound) => {
                    self.told(told?).await?;
                    self.heard = Instant::now();
                }
                () = self.shared.changed.notified() => {}
                answer = answered(&mut self.pulse) => {
                    answer?;
                    if self.inbound.is_none() || self.pulse.as_ref().is_some_and(|pulse| pulse.is_told) {
                        self.pulse = None;
                    }
                }
                _ = &mut self.driver.0 => return Err("the connection was closed".to_owned()),
                said = self.link.unfit() => return Err(said),
                _ = beat.tick() => {
                    let waits = self.awaited > 0 || self.pulse.as_ref().is_some_and(|pulse| !pulse.is_told);
                    let is_silent = waits && self.inbound.is_some() && self.heard.elapsed() > SILENCE;
                    // What came while this process did not run was not heard yet: a beat more.
                    if is_silent && is_suspect {
                        return Err(silent());
                    }
                    is_suspect = is_silent;
                    self.send_pulse();
                }
            }
        }
    }

    /// Brings what is subscribed to what is wanted, and what was missed meanwhile to those who want it.
    async fn settle(&mut self) -> Result<(), String> {
        let Some(inbound) = &mut self.inbound else { return Ok(()) };
        // One batch after the other: else there might never be a moment in which all are confirmed.
        if self.awaited > 0 {
            return Ok(());
        }
        let (subscribe, unsubscribe) = self.shared.cursors.lock().changes();
        let names = |channels: Vec<Arc<str>>| -> Vec<String> {
            channels.iter().map(|channel| format!("{}{channel}", self.shared.events_name)).collect()
        };
        self.awaited = subscribe.len() + unsubscribe.len();
        if self.awaited > 0 {
            inbound.unsubscribe(&names(unsubscribe)).await?;
            return inbound.subscribe(&names(subscribe)).await;
        }
        let behind = self.shared.cursors.lock().take_behind();
        if !behind.is_empty() {
            self.compare(behind).await?;
        }
        if !self.is_live || self.shared.cursors.lock().has_fresh() {
            self.send_pulse();
        }
        Ok(())
    }

    fn send_pulse(&mut self) {
        if self.awaited > 0 || self.pulse.is_some() {
            return;
        }
        let (shared, link) = (self.shared.clone(), self.link.clone());
        let answer = async move {
            let name = if shared.receiver.is_some() { &*shared.pulse_name } else { "" };
            let (epoch, start, end, _) = pulse(&shared, link, name).await?;
            // Whoever listens hears of it in its order.
            if name.is_empty() {
                shared.begin(epoch, start, end);
            }
            Ok(())
        };
        let sent = Instant::now();
        self.shared.health.lock().pulsed = Some(sent);
        self.pulse = Some(Pulse { sent, answer: Some(Box::pin(answer)), is_told: false });
    }

    fn go_live(&mut self) {
        self.is_live = true;
        self.shared.went_live();
    }

    async fn told(&mut self, told: Told) -> Result<(), String> {
        let shared = self.shared.clone();
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        match told {
            Told::Subscribed(name) => {
                self.awaited = self.awaited.saturating_sub(1);
                if let Some(channel) = text(&name).strip_prefix(&shared.events_name) {
                    shared.cursors.lock().subscribed(channel);
                }
            }
            Told::Unsubscribed(name) => {
                self.awaited = self.awaited.saturating_sub(1);
                if let Some(channel) = text(&name).strip_prefix(&shared.events_name) {
                    shared.cursors.lock().unsubscribed(channel);
                }
            }
            Told::Message(name, payload) if name == shared.pulse_name.as_bytes() => {
                self.pulsed(&text(&payload)).await?;
            }
            Told::Message(name, payload) => {
                let channel = std::str::from_utf8(&name).ok().and_then(|name| name.strip_prefix(&shared.events_name));
                let channel = channel.and_then(|channel| shared.cursors.lock().name(channel));
                if let Some(channel) = channel {
                    self.published(&channel, &payload).await?;
                }
            }
        }
        Ok(())
    }

    /// A pulse of ours: `epoch end`.
    async fn pulsed(&mut self, text: &str) -> Result<(), String> {
        let mut words = text.split(' ');
        let epoch = words.next().and_then(|word| number(word, 16));
        let end = words.next().and_then(|word| number(word, 10));
        let (Some(epoch), Some(end)) = (epoch, end) else {
            return Err("a pulse is none of ours".to_owned());
        };
        if self.agrees(epoch).await? {
            self.shared.cursors.lock().pulse(end);
        }
        if let Some(pulse) = &mut self.pulse {
            let mut health = self.shared.health.lock();
            health.lag = Some(pulse.sent.elapsed());
            health.pulsed = None;
            pulse.is_told = true;
        }
        if self.pulse.as_ref().is_some_and(|pulse| pulse.answer.is_none()) {
            self.pulse = None;
        }
        if !self.is_live {
            self.go_live();
        }
        Ok(())
    }

    /// Whether this is the epoch; what only a message says, the server is asked about.
    async fn agrees(&mut self, epoch: u64) -> Result<bool, String> {
        let known = self.shared.cursors.lock().position().epoch;
        if epoch == known {
            return Ok(true);
        }
        let (truth, start, end, _) = pulse(&self.shared, self.link.clone(), "").await?;
        self.shared.begin(truth, start, end);
        Ok(epoch == truth)
    }

    /// Events of a channel: a line with the epoch, then `offset previous text` in a line each.
    async fn published(&mut self, channel: &Arc<str>, payload: &[u8]) -> Result<(), String> {
        let mut lines = payload.split(|byte| *byte == b'\n');
        let epoch = lines.next().and_then(|line| number(std::str::from_utf8(line).ok()?, 16));
        let epoch = match epoch {
            Some(epoch) if self.agrees(epoch).await? => epoch,
            _ => {
                self.shared.skip(channel, "a message is none of ours");
                return Ok(());
            }
        };
        for (count, line) in lines.enumerate() {
            if count % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let mut words = line.splitn(3, |byte| *byte == b' ');
            let mut offset = || number(std::str::from_utf8(words.next()?).ok()?, 10);
            let (Some(offset), Some(previous), Some(text)) = (offset(), offset(), words.next()) else {
                self.shared.skip(channel, "a message is none of ours");
                continue;
            };
            let mut verdict = self.shared.cursors.lock().judge(channel, offset, previous);
            if verdict == Verdict::Missed {
                self.catch_up(channel, None).await?;
                if !self.agrees(epoch).await? {
                    return Ok(());
                }
                // All that the server has was read; what it does not have any more was told as a gap.
                verdict = self.shared.cursors.lock().judge(channel, offset, previous);
            }
            match verdict {
                Verdict::Old => {}
                Verdict::Next => self.shared.hand_over(channel, Position { epoch, offset }, text),
                Verdict::Missed => {
                    self.shared.gap(channel);
                    self.shared.cursors.lock().skip_to(channel, offset);
                    self.shared.hand_over(channel, Position { epoch, offset }, text);
                }
            }
        }
        Ok(())
    }

    /// Channels whose cursors are from before: those with newer events are read.
    async fn compare(&mut self, behind: Vec<(Arc<str>, Offset)>) -> Result<(), String> {
        for some in behind.chunks(AT_ONCE) {
            let mut command = cmd("MGET");
            some.iter().for_each(|(channel, _)| _ = command.arg(self.shared.key("l", channel)));
            let pointers: Vec<Option<Offset>> = limited(self.link.query(&command)).await?;
            let mut missed = Vec::new();
            for ((channel, at), pointer) in some.iter().zip(pointers) {
                if pointer.map_or(*at >= self.sure, |pointer| pointer <= *at) {
                    self.shared.cursors.lock().caught_up(channel, *at);
                } else {
                    missed.push((channel.clone(), *at));
                }
            }
            for some in missed.chunks(READS) {
                let reads: Vec<_> = some.iter().map(|(channel, at)| self.read_ahead(channel.clone(), *at)).collect();
                for ((channel, _), mut read) in some.iter().zip(reads) {
                    let page = (&mut read.0).await.map_err(reason)??;
                    self.catch_up(channel, Some(page)).await?;
                }
            }
        }
        Ok(())
    }

    fn read_ahead(&self, channel: Arc<str>, after: Offset) -> Owned<Result<Page, String>> {
        let (shared, link) = (self.shared.clone(), self.link.clone());
        Owned(tokio::spawn(async move {
            limited(Page::read(&shared, &link, &channel, after, READ_EVENTS, READ_BYTES)).await
        }))
    }

    /// Hands over what the server has of a channel beyond its cursor; what it does not have any more is a gap.
    async fn catch_up(&mut self, channel: &Arc<str>, mut first: Option<Page>) -> Result<(), String> {
        let shared = self.shared.clone();
        loop {
            let Some(after) = shared.cursors.lock().cursor(channel) else { return Ok(()) };
            let page = match first.take() {
                Some(page) => page,
                None => limited(Page::read(&shared, &self.link, channel, after, READ_EVENTS, READ_BYTES)).await?,
            };
            let epoch = page.epoch;
            if !self.agrees(epoch).await? {
                continue;
            }
            if page.foreign > 0 {
                shared.skip(channel, &format!("{} entries of its stream are none of ours", page.foreign));
            }
            let offsets = page.entries.iter().map(|(offset, previous, _)| (*offset, *previous));
            let end = (!page.more).then_some(page.last);
            let steps = shared.cursors.lock().follow(channel, offsets, page.tail, end);
            for (count, step) in steps.into_iter().enumerate() {
                if count % TURN == TURN - 1 {
                    tokio::task::yield_now().await;
                }
                match step {
                    Step::Gap => shared.gap(channel),
                    Step::HandOver(entry) => {
                        let (offset, _, text) = &page.entries[entry];
                        shared.hand_over(channel, Position { epoch, offset: *offset }, text);
                    }
                }
            }
            if !page.more {
                return Ok(());
            }
        }
    }
}

async fn next(inbound: &mut Option<Inbound>) -> Result<Told, String> {
    match inbound {
        Some(inbound) => inbound.next().await,
        None => std::future::pending().await,
    }
}

/// The pulse's answer, once; pending where none is awaited.
async fn answered(pulse: &mut Option<Pulse>) -> Result<(), String> {
    let answer = pulse.as_mut().and_then(|pulse| pulse.answer.as_mut());
    let Some(answer) = answer else { return std::future::pending().await };
    let answer = answer.await;
    if let Some(pulse) = pulse {
        pulse.answer = None;
    }
    answer
}

/// An answer of the server, within the time in which a living one gives it.
async fn limited<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, String> {
    match timeout(SILENCE, answer).await {
        Ok(answer) => answer.map_err(|error| said(&error)),
        Err(_) => Err(silent()),
    }
}

/// Epoch, its start, the end, and the server's clock.
async fn pulse(shared: &Shared, link: Link, name: &str) -> Result<(u64, Offset, Offset, Offset), String> {
    let witness = shared.cursors.lock().witness();
    let [fresh, seen_epoch] = [super::random(), witness.epoch].map(|epoch| format!("{epoch:016x}"));
    let [sure, seen] = [shared.sure(), witness.offset].map(|number| number.to_string());
    let mut args = shared.args();
    args.extend([&*fresh, &*sure, &*seen_epoch, &*witness.channel, &*seen, name]);
    let (epoch, start, end, now): (String, Offset, Offset, Offset) = limited(link.run(&PULSE, &args)).await?;
    Ok((number(&epoch, 16).ok_or("the epoch is none of ours")?, start, end, now))
}
