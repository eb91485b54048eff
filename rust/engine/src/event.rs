//! An event: an envelope and a JSON payload, parsed once and shared by `Arc` from here to the last subscriber.

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

/// Where an event stands in its bus: later events of a channel have greater offsets.
pub type Offset = u64;

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
    /// The length of `data` as compact JSON, in bytes.
    pub size: usize,
    /// The old image, for predicates alone: functions never see it.
    pub previous: Option<Value>,
    /// Where it stands in its bus.
    pub offset: Offset,
}

impl Event {
    /// An identity for a new event.
    pub fn new_id() -> Box<str> {
        uuid::Uuid::now_v7().simple().to_string().into()
    }
}
