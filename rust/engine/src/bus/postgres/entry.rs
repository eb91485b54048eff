//! Rows and what they mean: events, and those that mean nothing here.

use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::event::{Audience, Event, Offset, Position};
use crate::value::Value;

/// The meaning of rows that this program knows.
const VERSION: i16 = 1;

/// What an event's row is read from; `event` reads them in this order.
pub(super) const COLUMNS: &str = "e.position, e.version, e.id, e.published_at, e.event_type, e.tenant_id, \
     e.all_tenants, e.source, e.data::text, e.previous::text, e.channel";

/// The row's offset.
pub(super) fn offset(row: &Row) -> Result<Offset, String> {
    column::<i64>(row, 0).map(i64::cast_unsigned)
}

/// The row's channel.
pub(super) fn channel(row: &Row) -> Result<&str, String> {
    column(row, 10)
}

/// The row as an event of this channel, or why it is none.
pub(super) fn event(row: &Row, epoch: u64, channel: Arc<str>) -> Result<Event, String> {
    let version: i16 = column(row, 1)?;
    if version != VERSION {
        return Err(format!("an event of version {version}; this program knows {VERSION}"));
    }
    let object = |name: &str, text: &str| match Value::parse(text.as_bytes()) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(format!("{name} is no JSON object")),
        Err(error) => Err(format!("{name}: {error}")),
    };
    let text = |at| column::<Option<&str>>(row, at).map(|text| text.map(Arc::from));
    let data: &str = column(row, 8)?;
    Ok(Event {
        id: column::<uuid::Uuid>(row, 2)?.simple().to_string().into(),
        published_at: column(row, 3)?,
        event_type: column::<&str>(row, 4)?.into(),
        audience: if column(row, 6)? { Audience::All } else { Audience::Tenant(text(5)?) },
        source: text(7)?,
        data: object("data", data)?,
        size: data.len(),
        previous: column::<Option<&str>>(row, 9)?.map(|text| object("previous", text)).transpose()?,
        position: Position { epoch, offset: offset(row)? },
        channel,
    })
}

fn column<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, String> {
    row.try_get(at).map_err(|error| error.to_string())
}
