//! The bus of many processes over Redis (6.2 or newer) or Valkey.
//!
//! An event is an entry of its channel's stream, which is its history, and is told to whoever listens in the same script by
//! pub/sub, which carries it; so an event costs the same however many channels somebody watches. Streams are only read for what was
//! missed. See `publish.lua` for how offsets are given, `cursors` for what follows from what is heard, `session` for a connection's
//! life, `publisher` for answers that are lost.
//!
//! # Keys
//!
//! With `app` for the percent-encoded `consumer_group`: `app:clock` (epoch and greatest offset), `app:s:<channel>` (stream),
//! `app:l:<channel>` (last offset), `app:i:<id>` (outcome of a publish). Pub/sub, which knows no databases:
//! `app:<database>:e:<channel>`, `app:<database>:p:<process>`.
//!
//! # Rights
//!
//! `ACL SETUSER app on >secret resetkeys resetchannels ~app:* &app:* -@all +auth +select +info +ping +eval +evalsha +time +get +mget
//! +set +hmget +hset +del +xadd +xdel +xrange +xsetid +xtrim +pexpire +publish +subscribe +unsubscribe`
//!
//! # Operation
//!
//! Cluster mode is refused. A server that evicts keys (`maxmemory-policy` other than `noeviction`) may lose a channel's past. What a
//! failover or a crash loses of what was accepted is noticed by whoever has seen the last of it, and begins another epoch.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::config::Settings;
use self::cursors::Cursors;
use self::link::{Link, Owned};
use self::publisher::{Job, Line};
use self::session::Session;
use super::{BoxFuture, BusError, EventBus, Page, Published, Receiver, Status, Watched, wire};
use crate::accounts::Revocation;
use crate::event::{Event, Offset, Position};

mod config;
mod cursors;
mod link;
mod publisher;
mod session;

pub use config::RedisConfig;

/// The channel of a publish that only finds out whether it is allowed.
const TRIAL: &str = "\u{1}trial";
/// Entries that the channel of revocations keeps, whatever `history` is: who was away for a moment must hear of them.
const REVOCATIONS: u32 = 10_000;
/// A channel's last offset is kept for so much longer than its events; half of that allows for clocks that are set back.
const KEPT: Duration = Duration::from_secs(86_400);
/// What an attempt to connect anew may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Pauses between attempts grow up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// What a page of history holds, where no single event is larger.
const PAGE_BYTES: usize = 1 << 20;

/// A bus over one server.
pub struct RedisBus {
    settings: Arc<Settings>,
    /// By whom revocations are not to be heard.
    id: Arc<str>,
    run: Mutex<Option<Run>>,
    reconnects: Mutex<u64>,
}

/// From connecting to disconnecting.
struct Run {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    publisher: Owned<()>,
    supervisor: Owned<()>,
}

/// What the tasks of a run share.
struct Shared {
    settings: Arc<Settings>,
    id: Arc<str>,
    database: String,
    /// Of the pub/sub channel of a channel, before its name.
    events_name: String,
    /// The pub/sub channel of this process.
    pulse_name: String,
    receiver: Option<Arc<dyn Receiver>>,
    cursors: Mutex<Cursors>,
    /// Something may have to be subscribed.
    changed: Notify,
    link: watch::Sender<Option<Link>>,
    health: Mutex<Health>,
    /// Who waits for the first connection.
    first: Mutex<Option<oneshot::Sender<Result<(), BusError>>>>,
    share: Arc<Semaphore>,
}

#[derive(Default)]
struct Health {
    connected: bool,
    last_error: Option<String>,
    connections: u64,
    /// As the last pulse measured it.
    lag: Option<Duration>,
    /// When the pulse that was not heard yet was sent.
    pulsed: Option<Instant>,
}

impl RedisBus {
    /// A bus that is not connected; [`BusError::Refused`] where the configuration is wrong.
    pub fn new(config: &RedisConfig) -> Result<RedisBus, BusError> {
        let settings = Arc::new(config.check()?);
        let id = format!("{:016x}", random()).into();
        Ok(RedisBus { settings, id, run: Mutex::default(), reconnects: Mutex::default() })
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.run.lock().as_ref().map(|run| run.shared.clone())
    }

    fn unavailable(&self, reason: &str) -> BusError {
        BusError::Unavailable(format!("Redis at {}: {reason}", self.settings.place))
    }

    fn send(&self, lines: Vec<Line>) -> Result<BoxFuture<'static, Result<(), BusError>>, BusError> {
        let bytes: usize = lines.iter().map(|line| line.text.len() + line.channel.len()).sum();
        if bytes > publisher::WAITING_BYTES || lines.len() > publisher::EVENTS {
            let (events, mebibytes) = (publisher::EVENTS, publisher::WAITING_BYTES >> 20);
            let reason = format!("at most {events} events and {mebibytes} MiB can be published at once");
            return Err(BusError::Refused(reason));
        }
        let running = self.run.lock().as_ref().map(|run| (run.shared.clone(), run.jobs.clone()));
        let (shared, jobs) = running.ok_or_else(|| self.unavailable("it is not connected"))?;
        let full = || self.unavailable("too many publishes wait");
        let bytes = u32::try_from(bytes).map_err(|_| full())?;
        let share = shared.share.clone().try_acquire_many_owned(bytes).map_err(|_| full())?;
        let deadline = Instant::now() + self.settings.publish_timeout;
        let (job, outcome) = Job::new(lines, deadline, share, &self.settings.place);
        jobs.try_send(job).map_err(|_| full())?;
        Ok(outcome)
    }

    fn published(&self, lines: Vec<Line>) -> Published {
        if lines.is_empty() {
            return Published::Now;
        }
        let sent = self.send(lines);
        Published::Later(sent.unwrap_or_else(|error| Box::pin(std::future::ready(Err(error)))))
    }

    async fn open(&self, receiver: Option<Arc<dyn Receiver>>) -> Result<(), BusError> {
        let earlier = self.run.lock().take();
        drop(earlier);
        let (first, connected) = oneshot::channel();
        let shared = Arc::new(Shared::new(&self.settings, &self.id, receiver, first));
        let (jobs, waiting) = mpsc::channel(publisher::WAITING);
        let supervisor = Owned(tokio::spawn(supervise(shared.clone())));
        let publisher = Owned(tokio::spawn(publisher::run(shared.clone(), waiting)));
        match timeout(self.settings.connect_timeout, connected).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => return Err(error),
            Ok(Err(_)) | Err(_) => {
                let seconds = self.settings.connect_timeout.as_secs_f64();
                return Err(self.unavailable(&format!("no answer within {seconds} s")));
            }
        }
        *self.run.lock() = Some(Run { shared, jobs, publisher, supervisor });
        Ok(())
    }

    async fn close(&self) {
        let run = self.run.lock().take();
        let Some(Run { shared, jobs, mut publisher, mut supervisor }) = run else { return };
        drop(jobs);
        // What is not published by then was not accepted, or nobody knows; whoever waits is told so.
        _ = timeout(self.settings.publish_timeout, &mut publisher.0).await;
        supervisor.0.abort();
        _ = (&mut supervisor.0).await;
        *self.reconnects.lock() += shared.health.lock().connections.saturating_sub(1);
    }

    async fn page(&self, channel: &str, mut after: Position, limit: usize) -> Result<Page, BusError> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let shared = self.shared().ok_or_else(|| self.unavailable("it is not connected"))?;
        let away = || self.unavailable("it is away");
        let name: Arc<str> = channel.into();
        let mut link = shared.link(None, deadline).await.ok_or_else(away)?;
        loop {
            let read = session::Page::read(&shared, &link, channel, after.offset, limit, PAGE_BYTES);
            let page = match timeout_at(deadline, read).await.map_err(|_| away())? {
                Ok(page) => page,
                Err(error) if link::is_answer(&error) && link::unfit(&error).is_none() => {
                    return Err(self.unavailable(&link::reason(error)));
                }
                Err(_) => {
                    link = shared.link(Some(&link), deadline).await.ok_or_else(away)?;
                    continue;
                }
            };
            if page.epoch != after.epoch || after.offset > page.last {
                return Err(BusError::HistoryLost);
            }
            if page.foreign > 0 {
                shared.skip(&name, &format!("{} entries of its stream are none of ours", page.foreign));
            }
            let mut events = Vec::with_capacity(page.entries.len());
            let mut is_whole = true;
            for (offset, previous, text) in page.entries {
                is_whole = previous <= after.offset;
                if !is_whole {
                    break;
                }
                after.offset = offset;
                match wire::decode(&text, &name, after) {
                    Ok(event) => events.push(Arc::new(event)),
                    Err(reason) => shared.skip(&name, &reason),
                }
            }
            is_whole &= page.more || after.offset >= page.tail;
            match (is_whole, events.is_empty()) {
                // What is there is given; the next page finds the hole at its beginning.
                (false, true) => return Err(BusError::HistoryLost),
                (true, true) if page.more => {}
                (true, _) if !page.more => return Ok(Page { events, through: page.last }),
                _ => return Ok(Page { events, through: after.offset }),
            }
        }
    }
}

impl EventBus for RedisBus {
    fn connect(&self, receiver: Option<Arc<dyn Receiver>>) -> BoxFuture<'_, Result<(), BusError>> {
        Box::pin(self.open(receiver))
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.close())
    }

    fn publish(&self, events: Vec<Event>) -> Published {
        self.published(events.iter().map(Line::new).collect())
    }

    fn revoke(&self, revocation: &Arc<Revocation>) -> Published {
        self.published(vec![Line::new(&wire::revocation(revocation, &self.id))])
    }

    fn watch(&self, channel: &Arc<str>) -> Watched {
        let Some(shared) = self.shared() else {
            return Watched::Later(Box::pin(std::future::pending()));
        };
        let wanted = shared.cursors.lock().want(channel);
        match wanted {
            Ok(offset) => Watched::Now(offset),
            Err(mut live) => {
                shared.changed.notify_one();
                Watched::Later(Box::pin(async move {
                    let since = live.wait_for(Option::is_some).await.ok().and_then(|since| *since);
                    match since {
                        Some(since) => since,
                        // It was given up.
                        None => std::future::pending().await,
                    }
                }))
            }
        }
    }

    fn unwatch(&self, channel: &Arc<str>) {
        if let Some(shared) = self.shared() {
            shared.cursors.lock().unwant(channel);
            shared.changed.notify_one();
        }
    }

    fn position(&self) -> Option<Position> {
        (self.settings.history > 0).then(|| self.shared().map(|shared| shared.cursors.lock().position()))?
    }

    fn read<'a>(&'a self, channel: &'a str, after: Position, limit: usize) -> BoxFuture<'a, Result<Page, BusError>> {
        Box::pin(self.page(channel, after, limit))
    }

    fn status(&self) -> Status {
        let (kind, earlier) = ("redis", *self.reconnects.lock());
        let Some(shared) = self.shared() else {
            return Status { kind, connected: false, last_error: None, reconnects: earlier, lag: None };
        };
        let health = shared.health.lock();
        let reconnects = earlier + health.connections.saturating_sub(1);
        // A pulse that is late says more than the one before it.
        let lag = health.lag.max(health.pulsed.map(|sent| sent.elapsed())).filter(|_| health.connected);
        Status { kind, connected: health.connected, last_error: health.last_error.clone(), reconnects, lag }
    }

    fn patience(&self) -> Duration {
        self.settings.connect_timeout
    }
}

/// Connects, and connects anew, until it is ended; gives up where the first attempt fails.
async fn supervise(shared: Arc<Shared>) {
    let mut failures = 0u32;
    loop {
        let is_first = shared.first.lock().is_some();
        let patience = shared.settings.connect_timeout;
        let patience = if is_first { patience } else { patience.min(ATTEMPT) };
        let began = Instant::now();
        let error = match timeout(patience, Session::open(shared.clone())).await {
            Ok(Ok(session)) => session.run().await,
            Ok(Err(error)) => error,
            Err(_) => format!("no answer within {} s", patience.as_secs_f64()),
        };
        let was_connected = shared.went_away(&error);
        let first = shared.first.lock().take();
        if let Some(first) = first {
            // Nobody waits any more where connecting was given up.
            _ = first.send(Err(BusError::Unavailable(format!("Redis at {}: {error}", shared.settings.place))));
            return;
        }
        // A connection that is lost as soon as it is made is no success.
        failures = if was_connected && began.elapsed() > ATTEMPT { 0 } else { failures.saturating_add(1) };
        if failures > 0 {
            let pause = Duration::from_millis(25).saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
            // Those who lost it together must not come back together.
            sleep(pause.mul_f64(0.5 + (random() % 512) as f64 / 1024.0)).await;
        }
    }
}

impl Shared {
    fn new(
        settings: &Arc<Settings>,
        id: &Arc<str>,
        receiver: Option<Arc<dyn Receiver>>,
        first: oneshot::Sender<Result<(), BusError>>,
    ) -> Shared {
        let database = settings.server.redis_settings().db().to_string();
        let mut cursors = Cursors::default();
        // Watched from the beginning, whoever else is.
        _ = cursors.want(&wire::REVOKE.into());
        Shared {
            settings: settings.clone(),
            id: id.clone(),
            events_name: format!("{}:{database}:e:", settings.prefix),
            pulse_name: format!("{}:{database}:p:{id}", settings.prefix),
            database,
            receiver,
            cursors: Mutex::new(cursors),
            changed: Notify::new(),
            link: watch::Sender::new(None),
            health: Mutex::default(),
            first: Mutex::new(Some(first)),
            share: Arc::new(Semaphore::new(publisher::WAITING_BYTES)),
        }
    }

    async fn tls(&self) -> Result<Option<Arc<ClientConfig>>, String> {
        if !matches!(self.settings.server.addr(), redis::ConnectionAddr::TcpTls { .. }) {
            return Ok(None);
        }
        let settings = self.settings.clone();
        // Reads files, which may have been renewed.
        tokio::task::spawn_blocking(move || link::tls(&settings)).await.map_err(link::reason)?.map(Some)
    }

    /// The first arguments of every script.
    fn args(&self) -> Vec<&str> {
        vec![&self.settings.prefix, &self.database]
    }

    fn key(&self, kind: &str, channel: &str) -> String {
        format!("{}:{kind}:{channel}", self.settings.prefix)
    }

    /// What is not known of a channel's last event is older than this, in microseconds.
    fn sure(&self) -> u64 {
        micros(self.settings.age + KEPT / 2)
    }

    fn history(&self, channel: &str) -> u32 {
        match channel {
            wire::REVOKE => self.settings.history.max(REVOCATIONS),
            TRIAL => 1,
            _ => self.settings.history,
        }
    }

    /// A connection other than this one, if there is one in time.
    async fn link(&self, lost: Option<&Link>, deadline: Instant) -> Option<Link> {
        let is_other = |link: &Option<Link>| link.as_ref().is_some_and(|link| !link.is_same(lost));
        let mut links = self.link.subscribe();
        timeout_at(deadline, links.wait_for(is_other)).await.ok()?.ok()?.clone()
    }

    // ---- what is told to the receiver ----

    /// The epoch as the server says it is.
    fn begin(&self, epoch: u64, start: Offset, end: Offset) {
        let (earlier, gaps) = {
            let mut cursors = self.cursors.lock();
            (cursors.position().epoch, cursors.begin(epoch, start, end))
        };
        if earlier != 0 && earlier != epoch {
            self.warn("has lost what it knew (it was flushed, restarted without its data, or failed over): a new epoch begins");
        }
        gaps.iter().for_each(|channel| self.gap(channel));
    }

    fn gap(&self, channel: &str) {
        if channel == wire::REVOKE {
            self.warn("has lost revocations of other processes: whoever they named may still be served here");
        } else if let Some(receiver) = &self.receiver {
            receiver.gap(channel);
        }
    }

    fn skip(&self, channel: &str, reason: &str) {
        if let Some(receiver) = &self.receiver {
            receiver.skip(channel, reason);
        }
    }

    fn warn(&self, text: &str) {
        if let Some(receiver) = &self.receiver {
            receiver.warn(format!("Redis at {} {text}", self.settings.place));
        }
    }

    fn hand_over(&self, channel: &Arc<str>, position: Position, text: &[u8]) {
        let Some(receiver) = &self.receiver else { return };
        match wire::decode(text, channel, position) {
            Err(reason) => receiver.skip(channel, &reason),
            Ok(event) if &**channel != wire::REVOKE => receiver.receive(Arc::new(event)),
            Ok(event) if event.source.as_deref() != Some(&*self.id) => {
                receiver.revoke(&Arc::new(wire::revoked(&event)));
            }
            Ok(_) => {}
        }
    }

    // ---- how it is ----

    fn went_live(&self) {
        let is_again = {
            let mut health = self.health.lock();
            health.connected = true;
            health.connections += 1;
            health.connections > 1
        };
        if is_again {
            self.warn("is back");
        }
        let first = self.first.lock().take();
        if let Some(first) = first {
            // Nobody waits any more where connecting was given up.
            _ = first.send(Ok(()));
        }
    }

    /// Returns whether it was connected.
    fn went_away(&self, reason: &str) -> bool {
        let was_connected = {
            let mut health = self.health.lock();
            health.last_error = Some(format!("Redis at {}: {reason}", self.settings.place));
            (health.lag, health.pulsed) = (None, None);
            std::mem::take(&mut health.connected)
        };
        self.cursors.lock().lost();
        if was_connected {
            self.warn(&format!("is away: {reason}"));
        }
        was_connected
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn number(text: &str, radix: u32) -> Option<u64> {
    u64::from_str_radix(text, radix).ok()
}

/// A version 7 UUID's last 64 bits are random but for two.
fn random() -> u64 {
    uuid::Uuid::now_v7().as_u64_pair().1
}
