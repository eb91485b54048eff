//! What an operator does to the database of a bus: installing its schema, tracking tables, pruning. Not on an event's way.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row};

use super::connect::{Dsn, Link, reason};
use super::install::{self, Found, SchemaName};
use crate::bus::BusError;

/// Seconds for a connection.
const CONNECTING: Duration = Duration::from_secs(10);

/// A parameter and its type.
type Given<'a> = (&'a (dyn ToSql + Sync), Type);

/// How a table is tracked.
#[derive(Clone, Debug)]
pub struct Tracking {
    /// The table, as SQL writes it.
    pub table: String,
    /// Where it publishes; by default the table's name.
    pub channel: Option<String>,
    /// The column that says whose a row is.
    pub tenant_column: Option<String>,
    /// What is sent of a row; by default all of it.
    pub columns: Option<Vec<String>>,
    /// `raise` or `key-only`.
    pub oversize: String,
}

/// Installs the schema; returns what was there before, and the version that is there now.
pub async fn install(dsn: &Dsn, schema: &SchemaName) -> Result<(Found, i32), BusError> {
    let link = connect(dsn).await?;
    let found = install::look(&link.client, schema).await.map_err(|reason| unavailable(dsn, &reason))?;
    link.client.batch_execute(&schema.sql()).await.map_err(|error| refused(dsn, &error))?;
    Ok((found, install::VERSION))
}

/// Has a table publish what happens to its rows, or changes how it does; returns the channel.
pub async fn track(dsn: &Dsn, schema: &SchemaName, tracking: &Tracking) -> Result<String, BusError> {
    let Tracking { table, channel, tenant_column, columns, oversize } = tracking;
    let query = schema.fill("SELECT @schema@.track($1::text::regclass, $2, $3, $4, $5)");
    let given: [Given<'_>; 5] = [
        (table, Type::TEXT),
        (channel, Type::TEXT),
        (tenant_column, Type::TEXT),
        (columns, Type::TEXT_ARRAY),
        (oversize, Type::TEXT),
    ];
    Ok(change(dsn, schema, &query, &given).await?.get(0))
}

/// Has a table publish nothing any more; returns whether it did.
pub async fn untrack(dsn: &Dsn, schema: &SchemaName, table: &str) -> Result<bool, BusError> {
    let query = schema.fill("SELECT @schema@.untrack($1::text::regclass)");
    Ok(change(dsn, schema, &query, &[(&table, Type::TEXT)]).await?.get(0))
}

/// Changes a table, whose lock is not waited for for long: those who write to it would wait as well.
async fn change(dsn: &Dsn, schema: &SchemaName, query: &str, given: &[Given<'_>]) -> Result<Row, BusError> {
    let link = installed(dsn, schema).await?;
    let changing = async {
        link.client.batch_execute("BEGIN; SET LOCAL lock_timeout = '5s'").await?;
        let row = link.client.query_typed_one(query, given).await?;
        link.client.batch_execute("COMMIT").await?;
        Ok(row)
    };
    changing.await.map_err(|error| refused(dsn, &error))
}

/// Removes events beyond the last `history` of their channel and those older than `age` seconds; returns how many.
pub async fn prune(dsn: &Dsn, schema: &SchemaName, history: i64, age: f64) -> Result<i64, BusError> {
    let link = installed(dsn, schema).await?;
    let query = schema.fill("SELECT @schema@.prune($1, $2)");
    let mut all = 0;
    loop {
        let given: [Given<'_>; 2] = [(&history, Type::INT8), (&age, Type::FLOAT8)];
        let row = link.client.query_typed_one(&query, &given).await.map_err(|error| refused(dsn, &error))?;
        let removed: i64 = row.get(0);
        if removed == 0 {
            return Ok(all);
        }
        all += removed;
    }
}

/// A connection to a database that has our schema.
async fn installed(dsn: &Dsn, schema: &SchemaName) -> Result<Link, BusError> {
    let link = connect(dsn).await?;
    let found = install::look(&link.client, schema).await;
    found.and_then(|found| install::check(found, schema)).map_err(|reason| unavailable(dsn, &reason))?;
    Ok(link)
}

async fn connect(dsn: &Dsn) -> Result<Link, BusError> {
    match timeout(CONNECTING, dsn.connect(|_| {})).await {
        Ok(connected) => connected.map_err(BusError::Unavailable),
        Err(_) => Err(unavailable(dsn, &format!("no answer within {} s", CONNECTING.as_secs()))),
    }
}

fn unavailable(dsn: &Dsn, reason: &str) -> BusError {
    BusError::Unavailable(dsn.at(reason))
}

/// What the server has against it, in its words; or it is away.
fn refused(dsn: &Dsn, error: &Error) -> BusError {
    match error.as_db_error() {
        Some(said) => BusError::Refused(match said.hint() {
            Some(hint) => format!("{}. {hint}", reason(error)),
            None => reason(error),
        }),
        None => unavailable(dsn, &reason(error)),
    }
}
