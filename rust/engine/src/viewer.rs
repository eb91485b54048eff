//! Who watches. What a viewer may see is decided in [`crate::security`].

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use foldhash::HashSet;

use crate::value::Value;

/// What the host language keeps beside something; opaque here.
pub type Host = Arc<dyn Any + Send + Sync>;

/// The authenticated viewer behind a subscription: Python's `SecurityContext`.
#[derive(Debug, Default)]
pub struct Viewer {
    /// The id as text; ids compare as text.
    pub user_id: Option<Arc<str>>,
    /// The tenant as text.
    pub tenant_id: Option<Arc<str>>,
    /// What guards ask for (see [`crate::security::fields`]).
    pub permissions: HashSet<Box<str>>,
    /// The only sources whose events this viewer may receive; `None` is no limit.
    pub sources: Option<HashSet<Box<str>>>,
    /// When the authority ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// All of it except `expires_at` as an object, under the names of `SecurityContext`'s fields, for `viewer(...)` in predicates;
    /// ids are text, a set is a sorted list.
    pub fields: Value,
    /// Where in `fields` a `Decimal` stands, or a list of `Decimal`s and nulls.
    pub decimals: Vec<Vec<String>>,
    /// Equal for contexts that are equal as typed JSON, `expires_at` apart.
    pub key: Arc<str>,
    /// What the host language calls it; opaque here.
    pub host: Option<Host>,
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

    /// The field in which another viewer differs, `expires_at` apart; `None` where they are equal as typed JSON.
    pub fn differs(&self, other: &Viewer) -> Option<&'static str> {
        const FIELDS: [&str; 6] = ["user_id", "tenant_id", "roles", "permissions", "sources", "claims"];
        if self.key == other.key {
            return None;
        }
        let differs = |field: &&str| self.fields.get(field) != other.fields.get(field);
        // Ids of different types may have one text.
        Some(FIELDS.into_iter().find(differs).unwrap_or("the type of an id"))
    }

    /// Whether a `Decimal` was given at a path, or a list of `Decimal`s and nulls.
    pub fn is_decimal(&self, path: &[String]) -> bool {
        self.decimals.iter().any(|decimal| decimal == path)
    }

    /// A field of `SecurityContext`, or a claim below it, by its path.
    pub fn field(&self, path: &[String]) -> Option<Value> {
        if path == ["expires_at"] {
            return self.expires_at.map(|at| Value::string(at.to_rfc3339()));
        }
        self.fields.at(path.iter().map(String::as_str)).cloned()
    }
}
