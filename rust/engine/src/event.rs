//! An event: an envelope and a JSON payload, parsed once and shared by `Arc` from here to the last subscriber.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::value::Value;

/// Whose event it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    /// Viewers of this tenant; `None` is for viewers without one, and `""` equals only `""`.
    Tenant(Option<Arc<str>>),
    /// `ALL_TENANTS`: every viewer. A flag of the envelope that no string equals.
    All,
}

/// As operators read it: `tenant "a"`, `tenant none`, `every tenant`.
impl fmt::Display for Audience {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Audience::Tenant(Some(tenant)) => write!(out, "tenant {tenant:?}"),
            Audience::Tenant(None) => out.write_str("tenant none"),
            Audience::All => out.write_str("every tenant"),
        }
    }
}

/// Where an event stands in its bus: later events have greater offsets.
pub type Offset = u64;

/// A moment of a bus: what was published up to it is behind, what came later is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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

/// One event as the bus delivers it.
#[derive(Debug)]
pub struct Event {
    /// The identity that `publish_event` returned.
    pub id: Box<str>,
    /// What happened, as `event_types` names it.
    pub event_type: Arc<str>,
    /// Where it was published.
    pub channel: Arc<str>,
    /// Whose it is.
    pub audience: Audience,
    /// The service that it comes from.
    pub source: Option<Arc<str>>,
    /// When it was published.
    pub published_at: DateTime<Utc>,
    /// The payload: an object.
    pub data: Value,
    /// The length of `data` as JSON, in bytes.
    pub size: usize,
    /// The old image, for predicates alone: functions never see it.
    pub previous: Option<Value>,
    /// Where it stands in its bus, which sets it.
    pub position: Position,
}

impl Event {
    /// An identity for a new event.
    pub fn new_id() -> Box<str> {
        uuid::Uuid::now_v7().simple().to_string().into()
    }
}
