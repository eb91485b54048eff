//! Where events come from: a bus takes them from publishers and hands them to the engine of every process.
//!
//! # What every bus promises
//!
//! **Order.** All events of a bus have one order, the same for every process: each has a [`Position`] of its own, and the events of a
//! channel are handed over in it. An event whose cause was another's comes after that one.
//!
//! **Delivery.** An event that [`EventBus::publish`] accepted is handed once to every engine that watches its channel, unless
//! the bus says that there was a gap there. A lost connection is made anew, and handing over goes on behind the last event that was
//! handed over. Nobody waits for an event that is not committed yet, and nobody passes one by that is.
//!
//! **History.** Past events of a channel are kept, as many and as long as the bus was told. [`EventBus::read`] gives those beyond a
//! position, every one of them, or says that it cannot.
//!
//! **Epochs.** Positions are comparable within one epoch. A bus that may have lost what it knew (a disk, entries that a
//! failover dropped, a restored backup) begins another; positions of a new epoch are greater than those of the old one as far as clocks allow. Every channel that is
//! watched then has a gap.
//!
//! **Gaps** are told by channel, to those channels alone in which events may have been lost, before the first event that follows.
//!
//! **Foreign entries**, those of a newer version and broken ones are skipped and told by [`Receiver::skip`]; they stop nothing.
//!
//! **Errors.** [`BusError::Unavailable`] and [`BusError::Refused`] promise that nothing was accepted; [`BusError::Unknown`] promises
//! nothing but that it was not accepted twice. Every call ends: publishing within `publish_timeout`, all else within
//! `connect_timeout`. No text holds a password.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::accounts::Revocation;
use crate::event::{Event, Offset, Position};

mod memory;
pub mod postgres;
mod redis;
mod tls;
mod wire;

pub use self::redis::{RedisBus, RedisConfig};
pub use memory::MemoryBus;

/// What may be wrong with a URL whose parts are not where they seem to be.
const WRITTEN: &str = "in a user's name or password `@`, `:`, `/`, `?`, `#` and `%` are written `%40`, `%3A`, `%2F`, `%3F`, `%23` and `%25`";

/// A future of a bus.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a bus did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BusError {
    /// It is away; nothing was accepted.
    #[error("{0}")]
    Unavailable(String),
    /// No answer came: the event may have been accepted, once.
    #[error("{0}")]
    Unknown(String),
    /// The event is not one that the bus takes; nothing was accepted.
    #[error("{0}")]
    Refused(String),
    /// History does not reach back that far, or the position is none of this bus.
    #[error("the history that the token stands for is gone")]
    HistoryLost,
}

/// How a bus is, for a readiness probe and for the figures.
#[derive(Clone, Debug)]
pub struct Status {
    /// `memory`, `redis` or `postgresql`.
    pub kind: &'static str,
    /// Whether events flow.
    pub connected: bool,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// How often a lost connection was made anew.
    pub reconnects: u64,
    /// How far what is handed over is behind the bus, as last measured; `None` where nobody knows.
    pub lag: Option<Duration>,
}

/// Takes what a bus hands over. It returns at once, and never calls back.
pub trait Receiver: Send + Sync {
    /// One event; called in the order of its channel, never twice for one event.
    fn receive(&self, event: Arc<Event>);
    /// Events of this channel may have been lost.
    fn gap(&self, channel: &str);
    /// Another process has revoked somebody. Never told to the process that revoked.
    fn revoke(&self, revocation: &Arc<Revocation>);
    /// An entry of this channel was skipped, and why.
    fn skip(&self, channel: &str, reason: &str);
    /// Something that an operator should read: a lost connection, a new epoch. At most once for each occasion.
    fn warn(&self, text: String);
}

/// The outcome of a publish: at once where the bus is this process, else later.
pub enum Published {
    /// Accepted.
    Now,
    /// Accepted when this says so. It goes on when this is dropped.
    Later(BoxFuture<'static, Result<(), BusError>>),
}

/// Since when a channel is handed over.
pub enum Watched {
    /// It is: every event beyond this offset is handed over or told as a gap.
    Now(Offset),
    /// It is as soon as this is done, however long the bus is away. To drop it does not end watching.
    Later(BoxFuture<'static, Offset>),
}

/// Some of a channel's past.
#[derive(Debug)]
pub struct Page {
    /// In order; at least one of those that there are, and then as many as were asked for and fit about a mebibyte.
    pub events: Vec<Arc<Event>>,
    /// Up to here the channel has no others. At least the bus's end at the time of the call, where all of them are here.
    pub through: Offset,
}

/// A source and sink of events.
///
/// It can be connected, disconnected and connected again, and outlives that. It starts nothing before it is connected.
pub trait EventBus: Send + Sync {
    /// Connects, within `connect_timeout`, and begins to hand events over; without a receiver it only publishes. From then on
    /// it connects anew by itself, until it is disconnected. Called on the runtime that its tasks run on.
    fn connect(&self, receiver: Option<Arc<dyn Receiver>>) -> BoxFuture<'_, Result<(), BusError>>;
    /// Ends that; what is being published is finished first, within `publish_timeout`.
    fn disconnect(&self) -> BoxFuture<'_, ()>;
    /// Publishes all of these or none, in this order. The bus sets their positions. How many may be under way is bounded.
    fn publish(&self, events: Vec<Event>) -> Published;
    /// Tells the other processes of a revocation; they have it when this is done, or as soon as the bus reaches them.
    fn revoke(&self, revocation: &Arc<Revocation>) -> Published;
    /// Somebody here wants the events of a channel. Called again for each who does, while it is watched.
    fn watch(&self, channel: &Arc<str>) -> Watched;
    /// Nobody here wants them any more.
    fn unwatch(&self, channel: &Arc<str>);
    /// Its end as this process knows it, at most a second old where it is connected; `None` where it keeps no history.
    fn position(&self) -> Option<Position>;
    /// Events of a channel beyond a position, `limit` at most. [`BusError::HistoryLost`] where they are not all there any more, where the epoch is another,
    /// and where the position is beyond the bus's own end. While the bus is away it waits.
    fn read<'a>(&'a self, channel: &'a str, after: Position, limit: usize) -> BoxFuture<'a, Result<Page, BusError>>;
    /// How it is.
    fn status(&self) -> Status;
    /// How long those wait who need it while it is away: `connect_timeout`.
    fn patience(&self) -> Duration;
    /// Whether this process is all there is: what is published was handed over when [`EventBus::publish`] returns.
    fn is_local(&self) -> bool {
        false
    }
}
