//! What an operator does to a PostgreSQL database. Each call ends before it returns, with the interpreter left to others.

use std::future::Future;

use fraiseql_subs_engine::bus::BusError;
use fraiseql_subs_engine::bus::postgres::admin::{self, Tracking};
use fraiseql_subs_engine::bus::postgres::connect::Dsn;
use fraiseql_subs_engine::bus::postgres::install::{Found, SchemaName};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors;
use crate::runtime::runtime;

#[pyfunction]
#[pyo3(signature = (schema, migrations = None))]
pub(crate) fn postgres_sql(schema: &str, migrations: Option<Vec<String>>) -> PyResult<String> {
    let schema = SchemaName::parse(schema).map_err(PyValueError::new_err)?;
    Ok(match migrations {
        Some(steps) => schema.script(&steps.iter().map(String::as_str).collect::<Vec<_>>()),
        None => schema.sql(),
    })
}

#[pyfunction]
pub(crate) fn postgres_install(py: Python<'_>, dsn: &str, schema: &str) -> PyResult<(Option<i32>, i32)> {
    let (dsn, schema) = place(dsn, schema)?;
    let (found, version) = wait(py, admin::install(&dsn, &schema))?;
    let before = match found {
        Found::Nothing => None,
        Found::Version(version) => Some(version),
    };
    Ok((before, version))
}

#[pyfunction]
#[pyo3(signature = (dsn, schema, table, *, channel, tenant_column, columns, oversize))]
#[expect(clippy::too_many_arguments, reason = "the options of `pg track`")]
pub(crate) fn postgres_track(
    py: Python<'_>,
    dsn: &str,
    schema: &str,
    table: String,
    channel: Option<String>,
    tenant_column: Option<String>,
    columns: Option<Vec<String>>,
    oversize: String,
) -> PyResult<String> {
    let (dsn, schema) = place(dsn, schema)?;
    let tracking = Tracking { table, channel, tenant_column, columns, oversize };
    wait(py, admin::track(&dsn, &schema, &tracking))
}

#[pyfunction]
pub(crate) fn postgres_untrack(py: Python<'_>, dsn: &str, schema: &str, table: &str) -> PyResult<bool> {
    let (dsn, schema) = place(dsn, schema)?;
    wait(py, admin::untrack(&dsn, &schema, table))
}

#[pyfunction]
pub(crate) fn postgres_prune(py: Python<'_>, dsn: &str, schema: &str, history: u32, age: f64) -> PyResult<i64> {
    let (dsn, schema) = place(dsn, schema)?;
    wait(py, admin::prune(&dsn, &schema, history.into(), age))
}

fn place(dsn: &str, schema: &str) -> PyResult<(Dsn, SchemaName)> {
    let dsn = Dsn::parse(dsn).map_err(|reason| PyValueError::new_err(format!("dsn: {reason}")))?;
    Ok((dsn, SchemaName::parse(schema).map_err(PyValueError::new_err)?))
}

fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = Result<T, BusError>> + Send) -> PyResult<T> {
    let runtime = runtime()?;
    py.detach(|| runtime.block_on(future)).map_err(|error| errors::bus(py, &error))
}
