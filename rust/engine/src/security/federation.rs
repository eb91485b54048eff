//! The federation boundary: a field declares the services whose events it is about, a viewer may be limited to some, and only events
//! from both are for a subscription. An event that does not say where it comes from is from none of them.

use std::fmt;
use std::sync::Arc;

use foldhash::HashSet;

use super::Decision;

/// The services whose events a subscription may receive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sources {
    /// Any, and events that name none.
    #[default]
    Any,
    /// These alone, sorted.
    Only(Arc<Vec<Box<str>>>),
}

/// What a field declares and a viewer is limited to, together; `None`: nothing is left, and the subscribe is refused.
pub fn intersect(declared: Option<&[String]>, viewer: Option<&HashSet<Box<str>>>) -> Option<Sources> {
    let mut both: Vec<Box<str>> = match (declared, viewer) {
        (None, None) => return Some(Sources::Any),
        (Some(declared), None) => declared.iter().map(|source| source.as_str().into()).collect(),
        (None, Some(viewer)) => viewer.iter().cloned().collect(),
        (Some(declared), Some(viewer)) => {
            declared.iter().map(|source| Box::from(source.as_str())).filter(|source| viewer.contains(source)).collect()
        }
    };
    both.sort_unstable();
    both.dedup();
    (!both.is_empty()).then(|| Sources::Only(both.into()))
}

impl Sources {
    /// Whether an event from there may be received.
    pub fn decide(&self, source: Option<&str>) -> Decision {
        match self {
            Sources::Any => Decision::Allow,
            Sources::Only(allowed) => {
                Decision::allow_if(source.is_some_and(|source| allowed.iter().any(|one| **one == *source)))
            }
        }
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sources::Any => out.write_str("all"),
            Sources::Only(allowed) => write!(out, "{allowed:?}"),
        }
    }
}

#[cfg(test)]
mod tests;
