//! Viewers, as `SecurityContext` describes them.

use std::sync::Arc;

use fraiseql_subs_engine::value::Value;
use fraiseql_subs_engine::viewer::Viewer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Deserialize;

/// A viewer as `SecurityContext._json` describes it.
#[derive(Deserialize)]
struct ViewerInput {
    user_id: Option<Arc<str>>,
    tenant_id: Option<Arc<str>>,
    permissions: Vec<Box<str>>,
    sources: Option<Vec<Box<str>>>,
    expires_at: Option<chrono::DateTime<chrono::Utc>>,
    fields: Value,
    decimals: Vec<Vec<String>>,
    key: Arc<str>,
}

/// The viewer behind a `SecurityContext`.
pub(crate) fn parse_viewer(json: &str, context: Py<PyAny>) -> PyResult<Viewer> {
    let input: ViewerInput = serde_json::from_str(json).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(Viewer {
        user_id: input.user_id,
        tenant_id: input.tenant_id,
        permissions: input.permissions.into_iter().collect(),
        sources: input.sources.map(|sources| sources.into_iter().collect()),
        expires_at: input.expires_at,
        fields: input.fields,
        decimals: input.decimals,
        key: input.key,
        host: Some(Arc::new(context)),
    })
}
