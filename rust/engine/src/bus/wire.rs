//! An event as text, for buses that carry text: one JSON object, compact and so on one line.
//!
//! `{"v":1,"id":…,"type":…,"tenant":…|"all":true,"source":…,"at":microseconds,"previous":…,"data":…}`; what is missing is `None`.
//! A revocation travels as an event of a channel that no user can name.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::accounts::Revocation;
use crate::event::{Audience, Event, Position};
use crate::value::{MAX_NESTING, Object, Value, write_string};

/// The channel of revocations: users' channels hold no control characters.
pub(super) const REVOKE: &str = "\u{1}revoke";

/// What is written, and the newest that can be read.
const VERSION: i64 = 1;

/// An event's text, without its channel and its position.
pub(super) fn encode(event: &Event) -> String {
    let mut out = String::with_capacity(event.size + 160);
    out.push_str("{\"v\":1,\"id\":");
    write_string(&event.id, &mut out);
    out.push_str(",\"type\":");
    write_string(&event.event_type, &mut out);
    match &event.audience {
        Audience::All => out.push_str(",\"all\":true"),
        Audience::Tenant(None) => {}
        Audience::Tenant(Some(tenant)) => {
            out.push_str(",\"tenant\":");
            write_string(tenant, &mut out);
        }
    }
    if let Some(source) = &event.source {
        out.push_str(",\"source\":");
        write_string(source, &mut out);
    }
    out.push_str(",\"at\":");
    out.push_str(itoa::Buffer::new().format(event.published_at.timestamp_micros()));
    if let Some(previous) = &event.previous {
        out.push_str(",\"previous\":");
        previous.write_json(&mut out);
    }
    out.push_str(",\"data\":");
    event.data.write_json(&mut out);
    out.push('}');
    out
}

/// The event that a text stands for, or why it stands for none.
pub(super) fn decode(text: &[u8], channel: &Arc<str>, position: Position) -> Result<Event, String> {
    // The envelope is one level around what was checked when it was published.
    let value = Value::parse_within(text, MAX_NESTING + 1).map_err(|error| error.to_string())?;
    let Value::Object(mut members) = value else {
        return Err("no object".to_owned());
    };
    match members.get("v") {
        Some(Value::Int(version)) if (1..=VERSION).contains(version) => {}
        Some(Value::Int(version)) => return Err(format!("version {version}, and this process reads up to {VERSION}")),
        _ => return Err("no version".to_owned()),
    }
    let mut text_of = |key: &str| match members.swap_remove(key) {
        Some(Value::String(text)) => Ok(Some(text)),
        None | Some(Value::Null) => Ok(None),
        Some(_) => Err(format!("{key} is no text")),
    };
    let id = text_of("id")?.ok_or("no id")?;
    let event_type = text_of("type")?.ok_or("no type")?;
    let tenant = text_of("tenant")?;
    let source = text_of("source")?;
    let audience = match members.get("all") {
        None => Audience::Tenant(tenant.map(Arc::from)),
        Some(Value::Bool(true)) if tenant.is_none() => Audience::All,
        // Whose it is must not be guessed.
        Some(_) => return Err("all is not true, or there is a tenant too".to_owned()),
    };
    let published_at = match members.get("at") {
        Some(Value::Int(at)) => DateTime::<Utc>::from_timestamp_micros(*at).ok_or("at is no time")?,
        _ => return Err("no time".to_owned()),
    };
    let object = |value: Value| if value.as_object().is_some() { Ok(value) } else { Err("data is no object") };
    let previous = members.swap_remove("previous").map(object).transpose()?;
    let data = object(members.swap_remove("data").unwrap_or_default())?;
    Ok(Event {
        id,
        event_type: event_type.into(),
        channel: channel.clone(),
        audience,
        source: source.map(Arc::from),
        published_at,
        data,
        // What is a little more than its JSON is near enough for queues.
        size: text.len(),
        previous,
        position,
    })
}

/// A revocation as an event; `sender` is by whom it is not to be heard.
pub(super) fn revocation(revocation: &Revocation, sender: &str) -> Event {
    let Revocation { user_id, tenant_id, connection_id } = revocation;
    let members = [("user_id", user_id), ("tenant_id", tenant_id), ("connection_id", connection_id)];
    let given = members.into_iter().filter_map(|(key, text)| Some((key.into(), Value::string(&**text.as_ref()?))));
    Event {
        id: Event::new_id(),
        event_type: "revoke".into(),
        channel: REVOKE.into(),
        audience: Audience::All,
        source: Some(sender.into()),
        published_at: Utc::now(),
        data: Value::Object(given.collect::<Object>()),
        size: 0,
        previous: None,
        position: Position::default(),
    }
}

/// The revocation that an event of [`REVOKE`] stands for.
pub(super) fn revoked(event: &Event) -> Revocation {
    let text = |key| event.data.get(key).and_then(Value::as_str).map(Arc::from);
    Revocation { user_id: text("user_id"), tenant_id: text("tenant_id"), connection_id: text("connection_id") }
}

#[cfg(test)]
mod tests;
