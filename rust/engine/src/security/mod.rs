//! Who watches, and the five modules that decide what they may see: one file each, one pure decision each. All of them stand in order
//! in [`crate::admission`]. Whatever cannot be decided is a no.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustc_hash::FxHashSet;

use crate::value::Value;

pub mod federation;
pub mod fields;
pub mod rows;
pub mod scope;
pub mod tenant;

/// What a module says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// As far as the module is concerned, yes.
    Allow,
    /// No.
    Refuse,
}

impl Decision {
    /// Yes where it holds, else no.
    pub fn allow_if(holds: bool) -> Decision {
        if holds { Decision::Allow } else { Decision::Refuse }
    }

    /// Whether it is a yes.
    pub fn is_allowed(self) -> bool {
        self == Decision::Allow
    }
}

/// A security module, as metrics and audit records name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// The row filter.
    Rows,
    /// Tenant isolation.
    Tenant,
    /// Field access.
    Fields,
    /// The federation boundary.
    Sources,
    /// Variable scope.
    Scope,
}

/// Why somebody is refused: for operators alone. Clients are told "Forbidden", whatever it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Forbidden")]
pub struct Refusal {
    /// Which module refused; `None` where the authority itself has ended.
    pub module: Option<Module>,
    /// In words, with the rule.
    pub reason: Cow<'static, str>,
}

impl Refusal {
    /// A module's refusal.
    pub fn by(module: Module, reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { module: Some(module), reason: reason.into() }
    }

    /// The authority has ended.
    pub fn ended(reason: &'static str) -> Refusal {
        Refusal { module: None, reason: reason.into() }
    }
}

/// The authenticated viewer behind a subscription: Python's `SecurityContext`.
#[derive(Debug, Default)]
pub struct Viewer {
    /// The id as text; ids compare as text.
    pub user_id: Option<Arc<str>>,
    /// The tenant as text.
    pub tenant_id: Option<Arc<str>>,
    /// What guards ask for (see [`fields`]).
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

    /// A field of `SecurityContext`, or a claim below it, by its path.
    pub fn field(&self, path: &[String]) -> Option<Value> {
        if path == ["expires_at"] {
            return self.expires_at.map(|at| Value::string(at.to_rfc3339()));
        }
        self.fields.at(path.iter().map(String::as_str)).cloned()
    }
}
