//! Who watches, and the decisions about what they may see: one file a module, one pure decision each.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustc_hash::FxHashSet;

use crate::value::Value;

/// The authenticated viewer behind a subscription: Python's `SecurityContext`.
#[derive(Debug, Default)]
pub struct Viewer {
    /// The id as text; ids compare as text.
    pub user_id: Option<Arc<str>>,
    /// The tenant as text.
    pub tenant_id: Option<Arc<str>>,
    /// What `requires` asks for.
    pub permissions: FxHashSet<Box<str>>,
    /// The only sources whose events this viewer may receive; `None` is no limit.
    pub sources: Option<FxHashSet<Box<str>>>,
    /// When the authority ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// All of it except `expires_at` as an object, under the names of `SecurityContext`'s fields, for `viewer(...)` in predicates;
    /// ids are text, a set is a sorted list.
    pub fields: Value,
    /// Equal for contexts that are equal as typed JSON, `expires_at` apart.
    pub key: Arc<str>,
    /// What the host language calls it; opaque here.
    pub host: Option<Arc<dyn Any + Send + Sync>>,
}

/// No timer is set further away than this: the sum with an instant must not overflow.
const FOREVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 10);

impl Viewer {
    /// Whether the authority has ended.
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// How long the authority lasts; `None` where it does not end.
    pub fn expires_in(&self, now: DateTime<Utc>) -> Option<Duration> {
        let left = self.expires_at? - now;
        Some(left.to_std().unwrap_or_default().min(FOREVER))
    }

    /// Whether there is a tenant that is not empty.
    pub fn has_tenant(&self) -> bool {
        self.tenant_id.as_deref().is_some_and(|tenant| !tenant.is_empty())
    }
}
