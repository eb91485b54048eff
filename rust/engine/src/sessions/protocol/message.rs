//! The messages of the protocol: read from a frame, and written, byte for byte.

use std::fmt::Write as _;

use super::{MAX_ID, Subscribe};
use crate::engine::Resume;
use crate::event::Position;
use crate::value::{Object, Value, ValueError, write_string};

/// A `next` message: `body` is an ExecutionResult, `extensions` an object, both JSON.
pub fn next(id: &str, body: &str, extensions: Option<&str>) -> String {
    let mut out = String::with_capacity(id.len() + body.len() + extensions.map_or(0, str::len) + 64);
    out.push_str("{\"id\":");
    write_string(id, &mut out);
    out.push_str(",\"type\":\"next\",\"payload\":");
    write_result(body, extensions, &mut out);
    out.push('}');
    out
}

/// An ExecutionResult (JSON, not empty, without extensions of its own) with these extensions.
pub fn result(body: &str, extensions: Option<&str>) -> String {
    let mut out = String::with_capacity(body.len() + extensions.map_or(0, str::len) + 16);
    write_result(body, extensions, &mut out);
    out
}

fn write_result(body: &str, extensions: Option<&str>, out: &mut String) {
    match (extensions, body.strip_suffix('}')) {
        (Some(extensions), Some(open)) => {
            out.push_str(open);
            out.push_str(",\"extensions\":");
            out.push_str(extensions);
            out.push('}');
        }
        _ => out.push_str(body),
    }
}

/// What a message says beside its result: the event's id where it is asked for, how many were lost, and whether the bus lost some.
pub(in crate::sessions) fn extensions(event_id: Option<Position>, dropped: u64, gap: bool) -> Option<String> {
    if dropped == 0 && !gap && event_id.is_none() {
        return None;
    }
    let mut out = String::new();
    if dropped > 0 {
        _ = write!(out, ",\"dropped\":{dropped}");
    }
    if gap {
        out.push_str(",\"gap\":true");
    }
    if let Some(position) = event_id {
        _ = write!(out, ",\"eventId\":\"{}\"", position.token());
    }
    out.replace_range(..1, "{");
    out.push('}');
    Some(out)
}

/// An `error` message; `errors` is a JSON array of GraphQL errors.
pub fn error(id: &str, errors: &str) -> String {
    message(Some(id), "error", Some(errors))
}

/// A `complete` message.
pub fn complete(id: &str) -> String {
    message(Some(id), "complete", None)
}

pub(super) fn message(id: Option<&str>, kind: &str, payload: Option<&str>) -> String {
    let length = id.map_or(0, str::len) + kind.len() + payload.map_or(0, str::len);
    let mut out = String::with_capacity(length + r#"{"id":"","type":"","payload":}"#.len());
    out.push('{');
    if let Some(id) = id {
        out.push_str("\"id\":");
        write_string(id, &mut out);
        out.push(',');
    }
    out.push_str("\"type\":\"");
    out.push_str(kind);
    out.push('"');
    if let Some(payload) = payload {
        out.push_str(",\"payload\":");
        out.push_str(payload);
    }
    out.push('}');
    out
}

/// A message as a client may send it.
pub(super) enum Message {
    ConnectionInit(Value),
    Ping(Value),
    Pong,
    /// With what it asks of history; `None` where that cannot be read, which concerns this operation alone.
    Subscribe(Subscribe, Option<Resume>),
    Complete(Box<str>),
}

impl Message {
    /// Reads a frame; else says what is wrong with it. Members that the protocol does not know are ignored.
    pub(super) fn parse(text: &str) -> Result<Message, &'static str> {
        let mut message = match Value::parse(text.as_bytes()) {
            Ok(Value::Object(message)) => message,
            Ok(_) => return Err("not an object"),
            Err(ValueError::Syntax(_)) => return Err("not JSON"),
            Err(ValueError::Nul) => return Err("contains NUL"),
            Err(ValueError::TooDeep) => return Err("nested too deep"),
        };
        let (id, payload) = (take(&mut message, "id"), take(&mut message, "payload"));
        let id = || match id {
            Value::String(id) if id.len() > MAX_ID => Err("id has more than 1024 bytes"),
            Value::String(id) if !id.is_empty() => Ok(id),
            _ => Err("id must be a non-empty string"),
        };
        let payload_or_null = |payload| object_or_null(payload, "payload must be an object");
        match message.get("type").and_then(Value::as_str) {
            Some("connection_init") => match payload_or_null(payload)? {
                Value::Null => Ok(Message::ConnectionInit(Value::Object(Object::default()))),
                payload => Ok(Message::ConnectionInit(payload)),
            },
            Some("ping") => payload_or_null(payload).map(Message::Ping),
            Some("pong") => payload_or_null(payload).map(|_| Message::Pong),
            Some("subscribe") => Message::subscribe(id()?, payload),
            Some("complete") => id().map(Message::Complete),
            Some(_) => Err("unknown type"),
            None => Err("type must be a string"),
        }
    }

    fn subscribe(id: Box<str>, payload: Value) -> Result<Message, &'static str> {
        let Value::Object(mut payload) = payload else {
            return Err("payload must be an object");
        };
        let extensions = take(&mut payload, "extensions");
        let operation = Subscribe {
            id: id.into(),
            query: match take(&mut payload, "query") {
                Value::String(query) => query.into(),
                _ => return Err("payload.query must be a string"),
            },
            operation_name: match take(&mut payload, "operationName") {
                Value::Null => None,
                Value::String(name) => Some(name.into()),
                _ => return Err("payload.operationName must be a string"),
            },
            variables: object_or_null(take(&mut payload, "variables"), "payload.variables must be an object")?,
            resume: Resume::No,
        };
        let extensions = object_or_null(extensions, "payload.extensions must be an object")?;
        let resume = Resume::read(extensions.get("resume").unwrap_or(&Value::Null));
        Ok(Message::Subscribe(operation, resume))
    }
}

/// A member, `null` where it is missing.
fn take(object: &mut Object, key: &str) -> Value {
    object.swap_remove(key).unwrap_or_default()
}

fn object_or_null(value: Value, otherwise: &'static str) -> Result<Value, &'static str> {
    match value {
        Value::Null | Value::Object(_) => Ok(value),
        _ => Err(otherwise),
    }
}

#[cfg(test)]
mod tests;
