//! The bus in a PostgreSQL database: an outbox in which publishers write rows, positions given to them after their
//! commit, and NOTIFY as a wake-up.
//!
//! `schema.sql` says how positions are given and why none is passed by. Here one connection publishes and reads history
//! (`publishing`), and another one listens, gives positions and reads what is new (`listening`); what they do next is
//! decided by two state machines without I/O (`lead`, `reader`).

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

use super::{BoxFuture, BusError, EventBus, Page, Published, Receiver, Status, Watched, wire};
use crate::accounts::Revocation;
use crate::event::{Event, Offset, Position};
use connect::{Dsn, Link};
use install::SchemaName;
use lead::Lead;
use publishing::Request;
use reader::Reader;

pub mod admin;
pub mod connect;
mod entry;
pub mod install;
mod lead;
mod listening;
mod publishing;
mod reader;

/// A server that does not answer for this long is gone.
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest wait between two attempts to connect.
const BACKOFF: Duration = Duration::from_millis(250);

/// Whether the server takes what is published; it leaves nothing behind.
const TRIAL: &str = r"BEGIN;
    SELECT @schema@.publish_sent(ARRAY[gen_random_uuid()], ARRAY[E'\x01trial'], ARRAY['trial'], ARRAY[NULL::text],
        ARRAY[false], ARRAY[NULL::text], ARRAY['{}'], ARRAY[NULL::text]);
    ROLLBACK";

/// The longest history in seconds: a hundred years.
const LONGEST_AGE: f64 = 100.0 * 366.0 * 86_400.0;

/// The arguments of `EventBusConfig.postgresql`. It has no `Debug`: a DSN may hold a password.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// Where to publish and to read history; perhaps a transaction pooler.
    pub dsn: String,
    /// Where to listen, unless there too.
    pub listen_dsn: Option<String>,
    /// The schema's name.
    pub schema: String,
    /// Whether to install the schema when connecting.
    pub install: bool,
    /// How many events of a channel are kept.
    pub history: u32,
    /// And for how many seconds.
    pub history_age: f64,
    /// Seconds within which it connects, and within which everything ends that waits for a connection.
    pub connect_timeout: f64,
    /// Seconds within which a publish ends.
    pub publish_timeout: f64,
}

/// Events that travel through a PostgreSQL database.
pub struct PostgresBus {
    shared: Arc<Shared>,
}

/// What its tasks share.
struct Shared {
    dsn: Dsn,
    listen_dsn: Dsn,
    schema: SchemaName,
    install: bool,
    history: i64,
    history_age: f64,
    connect_timeout: Duration,
    publish_timeout: Duration,
    /// By which this process knows its own revocations.
    origin: Box<str>,
    state: Mutex<State>,
    /// There may be something to position.
    lead: Notify,
    /// There may be something to read.
    read: Notify,
    /// Where the bus stood when the last of these questions was asked, or later.
    asked: watch::Sender<Answered>,
    /// Whether the listening connection works.
    listening: watch::Sender<bool>,
    /// The publishing connection, while it works.
    publishing: watch::Sender<Option<Arc<Client>>>,
    /// Bytes that wait to be published.
    waiting: AtomicUsize,
    /// The server has refused a publish for what is wrong with itself.
    unfit: AtomicBool,
}

/// What became of all questions where the bus stands up to this one: what was published before it was asked is not beyond.
#[derive(Clone, Copy, Default)]
struct Answered {
    question: u64,
    end: Offset,
}

struct State {
    receiver: Option<Arc<dyn Receiver>>,
    requests: Option<mpsc::Sender<Request>>,
    tasks: Vec<JoinHandle<()>>,
    reader: Reader,
    lead: Lead,
    /// How often it was asked where the bus stands.
    questions: u64,
    last_error: Option<String>,
    reconnects: u64,
}

impl PostgresBus {
    /// A bus that is not connected. The error says what is wrong with the configuration, without any password.
    pub fn new(config: &PostgresConfig) -> Result<PostgresBus, BusError> {
        PostgresBus::of(config).map_err(BusError::Refused)
    }

    fn of(config: &PostgresConfig) -> Result<PostgresBus, String> {
        let dsn = Dsn::parse(&config.dsn).map_err(|reason| format!("dsn: {reason}"))?;
        let listen_dsn = match &config.listen_dsn {
            Some(text) => Dsn::parse(text).map_err(|reason| format!("listen_dsn: {reason}"))?,
            None => dsn.clone(),
        };
        let seconds = |name: &str, given: f64, most: f64| match Duration::try_from_secs_f64(given) {
            Ok(seconds) if given > 0.0 && given <= most => Ok(seconds),
            _ => Err(format!("{name}: expected seconds, more than 0 and up to {most}, got {given}")),
        };
        let state = State {
            receiver: None,
            requests: None,
            tasks: Vec::new(),
            reader: Reader::default(),
            lead: Lead::new(Instant::now()),
            questions: 0,
            last_error: None,
            reconnects: 0,
        };
        let shared = Shared {
            dsn,
            listen_dsn,
            schema: SchemaName::parse(&config.schema)?,
            install: config.install,
            history: config.history.into(),
            history_age: seconds("history_age", config.history_age, LONGEST_AGE)?.as_secs_f64(),
            connect_timeout: seconds("connect_timeout", config.connect_timeout, 86_400.0)?,
            publish_timeout: seconds("publish_timeout", config.publish_timeout, 86_400.0)?,
            origin: Event::new_id(),
            state: Mutex::new(state),
            lead: Notify::new(),
            read: Notify::new(),
            asked: watch::Sender::default(),
            listening: watch::Sender::new(false),
            publishing: watch::Sender::new(None),
            waiting: AtomicUsize::new(0),
            unfit: AtomicBool::new(false),
        };
        Ok(PostgresBus { shared: Arc::new(shared) })
    }
}

impl Shared {
    /// Something that took too long, or went wrong, on the way to a server.
    fn failed(&self, error: &str) {
        self.state.lock().last_error = Some(error.to_owned());
    }

    /// A connection was lost; whoever reads the log is told once.
    fn lost(&self, error: &str) {
        let receiver = {
            let mut state = self.state.lock();
            state.last_error = Some(error.to_owned());
            state.receiver.clone()
        };
        if let Some(receiver) = receiver {
            receiver.warn(format!("{error}; connecting anew"));
        }
    }

    /// Opens the publishing connection.
    async fn open_publishing(&self) -> Result<Link, String> {
        let link = self.dsn.connect(|_| {}).await?;
        self.check(&link.client).await.map_err(|reason| self.dsn.at(&reason))?;
        if self.unfit.load(Relaxed) {
            let tried = link.client.batch_execute(&self.schema.fill(TRIAL)).await;
            tried.map_err(|error| self.dsn.at(&connect::reason(&error)))?;
            self.unfit.store(false, Relaxed);
        }
        Ok(link)
    }

    /// Whether our schema is there, as it is to be; installs it where that was asked for.
    async fn check(&self, client: &Client) -> Result<(), String> {
        let checked = install::check(install::look(client, &self.schema).await?, &self.schema);
        if checked.is_err() && self.install {
            // A transaction pooler takes a transaction as well.
            return install::install(client, &self.schema).await.map(drop);
        }
        checked
    }

    /// Everything that `connect` waits for.
    async fn open(self: &Arc<Self>, listens: bool) -> Result<(Link, Option<listening::Session>), String> {
        let publishing = self.open_publishing().await?;
        let listening = if listens { Some(listening::Session::open(self).await?) } else { None };
        Ok((publishing, listening))
    }
}

/// Waits for something on the way to a server, but not for ever.
async fn within<T>(limit: Duration, dsn: &Dsn, doing: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(limit, doing)
        .await
        .unwrap_or_else(|_| Err(dsn.at(&format!("no answer within {} seconds", limit.as_secs_f64()))))
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let number = RandomState::new().hash_one(()) >> 32;
    f64::from(u32::try_from(number).unwrap_or(0)) / f64::from(u32::MAX)
}

/// How long to wait before the next attempt to connect.
fn backoff(attempt: u32) -> Duration {
    let most = Duration::from_millis(50).saturating_mul(1 << attempt.min(10)).min(BACKOFF);
    most.mul_f64(0.5 + chance() / 2.0)
}

impl EventBus for PostgresBus {
    fn connect(&self, receiver: Option<Arc<dyn Receiver>>) -> BoxFuture<'_, Result<(), BusError>> {
        Box::pin(async move {
            let shared = &self.shared;
            {
                let mut state = shared.state.lock();
                state.receiver.clone_from(&receiver);
                if receiver.is_some() {
                    state.reader.watch(&wire::REVOKE.into());
                }
            }
            let opening = shared.open(receiver.is_some());
            let opened = within(shared.connect_timeout, &shared.dsn, opening).await;
            let (publishing, listening) = opened.map_err(|error| {
                shared.failed(&error);
                BusError::Unavailable(error)
            })?;
            shared.waiting.store(0, Relaxed);
            let (requests, queue) = mpsc::channel(publishing::WAITING);
            shared.publishing.send_replace(Some(publishing.client.clone()));
            let mut tasks = vec![tokio::spawn(publishing::run(shared.clone(), publishing, queue))];
            if let Some(session) = listening {
                shared.listening.send_replace(true);
                tasks.push(tokio::spawn(listening::run(shared.clone(), session)));
            }
            let mut state = shared.state.lock();
            state.requests = Some(requests);
            state.tasks = tasks;
            Ok(())
        })
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let shared = &self.shared;
            let (tasks, requests) = {
                let mut state = shared.state.lock();
                (std::mem::take(&mut state.tasks), state.requests.take())
            };
            drop(requests);
            let mut tasks = tasks.into_iter();
            if let Some(mut publishing) = tasks.next() {
                // It ends when its queue is empty.
                if timeout(shared.publish_timeout, &mut publishing).await.is_err() {
                    publishing.abort();
                }
            }
            for listening in tasks {
                listening.abort();
                _ = listening.await;
            }
            shared.publishing.send_replace(None);
            shared.listening.send_replace(false);
            let receiver = {
                let mut state = shared.state.lock();
                state.reader.disconnected();
                state.receiver.take()
            };
            drop(receiver);
        })
    }

    fn publish(&self, events: Vec<Event>) -> Published {
        publishing::publish(&self.shared, events)
    }

    fn revoke(&self, revocation: &Arc<Revocation>) -> Published {
        publishing::publish(&self.shared, vec![wire::revocation(revocation, &self.shared.origin)])
    }

    fn watch(&self, channel: &Arc<str>) -> Watched {
        let mut asked = self.shared.asked.subscribe();
        let question = {
            let mut state = self.shared.state.lock();
            state.reader.watch(channel);
            state.lead.wanted();
            state.questions += 1;
            state.questions
        };
        self.shared.lead.notify_one();
        Watched::Later(Box::pin(async move {
            match asked.wait_for(|answered| answered.question >= question).await.map(|answered| answered.end) {
                Ok(end) => end,
                // The bus is gone.
                Err(_) => std::future::pending().await,
            }
        }))
    }

    fn unwatch(&self, channel: &Arc<str>) {
        self.shared.state.lock().reader.unwatch(channel);
    }

    fn position(&self) -> Option<Position> {
        let end = self.shared.state.lock().reader.end().filter(|_| self.shared.history > 0);
        end.map(|(epoch, offset)| Position { epoch, offset })
    }

    fn read<'a>(&'a self, channel: &'a str, after: Position, limit: usize) -> BoxFuture<'a, Result<Page, BusError>> {
        let shared = &self.shared;
        Box::pin(async move {
            let reading = timeout(shared.connect_timeout, publishing::read(shared, channel, after, limit));
            reading.await.unwrap_or_else(|_| {
                let error = shared.state.lock().last_error.clone();
                Err(BusError::Unavailable(error.unwrap_or_else(|| shared.dsn.at("no answer to a read of history"))))
            })
        })
    }

    fn status(&self) -> Status {
        let state = self.shared.state.lock();
        let is_publishing = self.shared.publishing.borrow().is_some();
        let connected = is_publishing && (state.receiver.is_none() || *self.shared.listening.borrow());
        Status {
            kind: "postgresql",
            connected,
            last_error: state.last_error.clone(),
            reconnects: state.reconnects,
            lag: connected.then(|| state.reader.behind().map_or(Duration::ZERO, |since| since.elapsed())),
        }
    }

    fn patience(&self) -> Duration {
        self.shared.connect_timeout
    }
}
