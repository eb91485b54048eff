//! Field access: what a field asks of a viewer's permissions.

use super::{Module, Refusal, Viewer};

/// Whether a viewer has all permissions of one of the alternatives.
pub fn is_permitted(viewer: &Viewer, guard: &[Vec<String>]) -> bool {
    let has = |permission: &String| viewer.permissions.contains(permission.as_str());
    guard.iter().any(|all| all.iter().all(has))
}

/// Why a viewer may not have the field at all.
pub fn refusal(coordinate: &str, guard: Option<&[Vec<String>]>, viewer: &Viewer) -> Option<Refusal> {
    let guard = guard.filter(|guard| !is_permitted(viewer, guard))?;
    Some(Refusal::by(Module::Fields, format!("{coordinate} requires {guard:?}")))
}
