//! Field access: may this viewer see what a guard stands before? Guards come from `requires` and from the SDL's directives
//! (`sdl`); [`crate::graphql::schema`] brings each to the fields that it holds for, and [`crate::graphql::plan`] asks them all when a
//! selection is compiled. What is done about a refusal is decided there.

use std::fmt;

use serde::Deserialize;

use super::Decision;
use crate::error::{Module, Refusal};
use crate::viewer::Viewer;

/// One thing that a guard asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The viewer is somebody: `user_id` is not `None`.
    Authenticated,
    /// The viewer's permissions hold this exact text.
    Permission(Box<str>),
}

/// What is asked of a viewer: an OR of ANDs. Without alternatives nobody satisfies it; an alternative without needs is
/// satisfied by everybody.
///
/// It is kept in its shortest form, in which guards are equal if and only if they mean the same.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<Vec<Box<str>>>")]
pub struct Guard(Vec<Vec<Need>>);

impl From<Vec<Vec<Box<str>>>> for Guard {
    /// Alternatives of permissions.
    fn from(any: Vec<Vec<Box<str>>>) -> Guard {
        Guard::shortest(any.into_iter().map(|all| all.into_iter().map(Need::Permission).collect()).collect())
    }
}

impl Guard {
    /// Asks for a user, whoever it is.
    pub fn authenticated() -> Guard {
        Guard(vec![vec![Need::Authenticated]])
    }

    /// Both must hold: each alternative of the one with each of the other.
    pub fn and(&self, other: &Guard) -> Guard {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| [a.as_slice(), b].concat()));
        Guard::shortest(pairs.collect())
    }

    /// Leaves out what adds nothing: whoever satisfies a longer alternative satisfies a shorter one within it.
    fn shortest(mut alternatives: Vec<Vec<Need>>) -> Guard {
        for needs in &mut alternatives {
            needs.sort_unstable();
            needs.dedup();
        }
        alternatives.sort_unstable_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        let mut shortest: Vec<Vec<Need>> = Vec::new();
        for needs in alternatives {
            if !shortest.iter().any(|shorter| shorter.iter().all(|need| needs.contains(need))) {
                shortest.push(needs);
            }
        }
        Guard(shortest)
    }
}

impl Need {
    fn is_met(&self, viewer: &Viewer) -> bool {
        match self {
            Need::Authenticated => viewer.user_id.is_some(),
            Need::Permission(permission) => viewer.permissions.contains(permission),
        }
    }
}

/// Whether a viewer has all that one of the alternatives asks for.
pub fn decide(guard: &Guard, viewer: &Viewer) -> Decision {
    let is_met = |needs: &Vec<Need>| needs.iter().all(|need| need.is_met(viewer));
    Decision::allow_if(guard.0.iter().any(is_met))
}

/// Why a viewer may not have what a guard stands before: `Order.total requires 'a' and 'b', or 'c'; the viewer lacks 'b', or 'c'`.
pub fn refusal(guarded: &str, guard: Option<&Guard>, viewer: &Viewer) -> Option<Refusal> {
    let guard = guard.filter(|guard| !decide(guard, viewer).is_allowed())?;
    let lacked = |needs: &Vec<Need>| needs.iter().filter(|need| !need.is_met(viewer)).cloned().collect();
    let lacks: Vec<Vec<Need>> = guard.0.iter().map(lacked).collect();
    let mut reason = format!("{guarded} {guard}");
    if !lacks.is_empty() {
        reason += &format!("; the viewer lacks {}", alternatives(&lacks));
    }
    Some(Refusal::by(Module::Fields, reason))
}

impl fmt::Display for Guard {
    /// `requires a and b, or c`
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.first() {
            None => out.write_str("is for nobody"),
            Some(first) if first.is_empty() => out.write_str("is for everybody"),
            Some(_) => write!(out, "requires {}", alternatives(&self.0)),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Authenticated => out.write_str("a user_id"),
            Need::Permission(permission) => write!(out, "'{permission}'"),
        }
    }
}

fn alternatives(any: &[Vec<Need>]) -> String {
    let all = |all: &Vec<Need>| all.iter().map(Need::to_string).collect::<Vec<_>>().join(" and ");
    any.iter().map(all).collect::<Vec<_>>().join(", or ")
}

#[cfg(test)]
mod tests;
