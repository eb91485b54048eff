//! Limits as the user set them. They are validated where they are built; nothing here reads a clock.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// What happens to a message that its mailbox has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Discard what waits and close the connection.
    #[default]
    Disconnect,
    /// Drop what has waited longest.
    DropOldest,
    /// Drop the new message.
    DropNewest,
    /// Keep the newest alone.
    Latest,
}

/// The limits of a manager; the names are those of the Python class, which documents them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the Python class documents each limit")]
pub struct Limits {
    pub max_connections: usize,
    pub max_connections_per_user: Option<usize>,
    pub max_connections_per_tenant: Option<usize>,
    pub max_pending_connections: usize,
    pub max_subscriptions_per_connection: usize,
    pub max_subscriptions_per_user: Option<usize>,
    pub max_subscriptions_per_tenant: Option<usize>,
    pub max_message_bytes: usize,
    pub max_query_bytes: usize,
    pub max_query_tokens: usize,
    pub max_query_depth: usize,
    pub max_query_fields: usize,
    pub max_query_aliases: usize,
    pub max_argument_bytes: usize,
    pub max_subscription_bytes: usize,
    pub max_connection_state_bytes: usize,
    pub max_user_bytes: usize,
    pub max_process_bytes: usize,
    pub messages_per_second: Option<f64>,
    pub message_burst: usize,
    pub bytes_per_second: Option<f64>,
    #[serde(deserialize_with = "seconds")]
    pub connection_init_timeout: Duration,
    #[serde(deserialize_with = "seconds")]
    pub ping_interval: Duration,
    #[serde(deserialize_with = "seconds")]
    pub pong_timeout: Duration,
    pub subscribes_per_second: Option<f64>,
    pub burst: usize,
    pub events_per_second_per_subscription: Option<f64>,
    pub events_per_second_per_user: Option<f64>,
    pub max_event_bytes: usize,
    pub queue_messages: usize,
    pub queue_bytes: usize,
    pub connection_queue_bytes: usize,
    pub overflow: Overflow,
    pub max_result_bytes: usize,
    pub max_result_nodes: usize,
    pub resolver_concurrency: usize,
    pub max_calls: usize,
    pub resolver_threads: usize,
    #[serde(deserialize_with = "seconds")]
    pub drain_timeout: Duration,
    #[serde(deserialize_with = "seconds")]
    pub resolver_timeout: Duration,
}

impl Limits {
    /// Whether they limit anybody's events.
    pub fn limit_events(&self) -> bool {
        self.events_per_second_per_subscription.is_some() || self.events_per_second_per_user.is_some()
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    // A timer further away than this never fires; the sum with an `Instant` must not overflow.
    const FOREVER: f64 = 60.0 * 60.0 * 24.0 * 365.0 * 10.0;
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds.min(FOREVER)).map_err(serde::de::Error::custom)
}
