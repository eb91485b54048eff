//! The row filter: `rows` must be true for this event and this viewer. False and unknown are both a no. What the key of the index has
//! proved is not asked again.

use super::Decision;
use crate::event::Event;
use crate::matching::index::Conjuncts;

/// Whether the viewer, who is bound into the rule, may see this event. `keyed`: the event was found by the index.
pub(crate) fn decide(rule: &Conjuncts, event: &Event, keyed: bool) -> Decision {
    Decision::allow_if(rule.hold(event, keyed))
}
