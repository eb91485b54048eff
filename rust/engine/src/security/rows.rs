//! The row filter: `rows` must be true for this event and this viewer. False and unknown are both a no.

use super::Decision;

/// Whether a viewer may see an event of which `rows`, with this viewer filled in, says so much; `None` is unknown.
pub fn decide(rule: Option<bool>) -> Decision {
    Decision::allow_if(rule == Some(true))
}
