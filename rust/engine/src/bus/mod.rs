//! Where events come from: a bus takes them from publishers and hands them to the engine of every process.
//!
//! # What every bus promises
//!
//! * **Order.** The events of a channel have one order, given by their [`Offset`]s, and are handed over in it.
//! * **Delivery.** An event that [`EventBus::publish`] accepted is handed once to every engine that watches its channel, unless the
//!   bus says that there was a gap.
//! * **History.** A bus may keep past events of a channel. [`EventBus::read`] gives those beyond an offset, all of them, or says
//!   that it cannot.
//! * **Epochs.** Offsets are comparable within one epoch. A bus that has lost what it knew begins another.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::event::{Event, Offset};
use crate::revocation::Revocation;

mod memory;

pub use memory::MemoryBus;

/// A future of a bus.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a bus did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BusError {
    /// It is away; nothing was accepted.
    #[error("{0}")]
    Unavailable(String),
    /// No answer came: the event may have been accepted.
    #[error("{0}")]
    Unknown(String),
    /// History does not reach back that far.
    #[error("the history that the token stands for is gone")]
    HistoryLost,
}

/// A moment of a bus: what was published up to it is behind, what came later is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The life of the bus within which offsets are comparable.
    pub epoch: u64,
    /// The offset of the last event that is behind.
    pub offset: Offset,
}

impl Position {
    /// The opaque token that clients keep.
    pub fn token(self) -> String {
        format!("{:016x}{:016x}", self.epoch, self.offset)
    }

    /// Reads a token.
    pub fn parse(token: &str) -> Option<Position> {
        let valid = token.len() == 32 && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let part = |range| u64::from_str_radix(token.get(range)?, 16).ok();
        valid.then_some(())?;
        Some(Position { epoch: part(0..16)?, offset: part(16..32)? })
    }
}

/// How a bus is, for a readiness probe.
#[derive(Clone, Debug)]
pub struct Status {
    /// `memory`, `redis` or `postgresql`.
    pub kind: &'static str,
    /// Whether events flow.
    pub connected: bool,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// Takes what a bus hands over.
pub trait Receiver: Send + Sync {
    /// One event; called in the order of its channel, never twice for one event.
    fn receive(&self, event: Arc<Event>);
    /// Events of this channel may have been lost.
    fn gap(&self, channel: &str);
    /// Another process has revoked somebody.
    fn revoke(&self, revocation: &Arc<Revocation>);
}

/// The outcome of a publish: at once where the bus is this process, else later.
pub enum Published {
    /// Accepted.
    Now,
    /// Accepted when this says so.
    Later(BoxFuture<'static, Result<(), BusError>>),
}

/// A source and sink of events.
pub trait EventBus: Send + Sync {
    /// Begins to hand events over.
    fn connect(&self, receiver: Arc<dyn Receiver>) -> BoxFuture<'_, Result<(), BusError>>;
    /// Ends that.
    fn disconnect(&self) -> BoxFuture<'_, ()>;
    /// Publishes all of these or none. The bus sets their offsets.
    fn publish(&self, events: Vec<Event>) -> Published;
    /// Tells the other processes of a revocation; they have it when this is done, or as soon as the bus reaches them.
    fn revoke(&self, revocation: &Arc<Revocation>) -> Published;
    /// Somebody here wants the events of a channel.
    fn watch(&self, channel: &Arc<str>);
    /// Nobody here wants them any more.
    fn unwatch(&self, channel: &Arc<str>);
    /// Its end as this process knows it; `None` where it keeps no history.
    fn position(&self) -> Option<Position>;
    /// Events of a channel beyond an offset, oldest first, `limit` at most; an empty page is the end.
    fn read<'a>(
        &'a self,
        channel: &'a str,
        after: Offset,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Arc<Event>>, BusError>>;
    /// How it is.
    fn status(&self) -> Status;
}
