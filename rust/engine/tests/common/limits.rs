//! Limits that no test runs into by chance.

use fraiseql_subs_engine::limits::Limits;
use serde_json::json;

pub(crate) fn limits() -> Limits {
    serde_json::from_value(json!({
        "max_connections": 100, "max_connections_per_user": null, "max_connections_per_tenant": null,
        "max_pending_connections": 100, "max_subscriptions_per_connection": 100, "max_subscriptions_per_user": null,
        "max_subscriptions_per_tenant": null, "max_message_bytes": 65536, "max_query_bytes": 65536,
        "max_query_tokens": 2000, "max_query_depth": 20, "max_query_fields": 1000, "max_query_aliases": 30,
        "max_argument_bytes": 262144, "max_subscription_bytes": 1048576, "max_connection_state_bytes": 8388608,
        "max_user_bytes": 67108864, "max_process_bytes": 1073741824, "messages_per_second": null, "message_burst": 1000,
        "bytes_per_second": null,
        "connection_init_timeout": 60, "ping_interval": 60, "pong_timeout": 60, "subscribes_per_second": null,
        "burst": 100, "events_per_second_per_subscription": null, "events_per_second_per_user": null,
        "max_event_bytes": 65536, "queue_messages": 100, "queue_bytes": 65536, "connection_queue_bytes": 65536,
        "overflow": "disconnect", "max_result_bytes": 65536, "max_result_nodes": 100000, "resolver_concurrency": 1, "max_calls": 1000, "resolver_threads": 1,
        "drain_timeout": 5, "resolver_timeout": 10,
    }))
    .unwrap()
}
