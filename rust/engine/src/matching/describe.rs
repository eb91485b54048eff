//! A verdict in words, for operators: what the event has, and what was asked of it.

use super::index::{Condition, Verdict};
use crate::event::Event;
use crate::predicate;

/// A condition whose text is longer than this is not written out: its arguments are a client's, and may be long.
const LONGEST: usize = 2000;

impl Condition {
    /// Why an event on the right channel does not match; `rule` is what was declared, in words.
    pub(crate) fn describe(&self, verdict: Verdict, event: &Event, rule: impl FnOnce() -> String) -> String {
        match verdict {
            Verdict::EventType => {
                let types = self.event_types().unwrap_or_default();
                format!("the event's type is {:?}, the field is about {types:?}", &*event.event_type)
            }
            Verdict::Sources => {
                let source = event.source.as_deref().map_or_else(|| "none".into(), |source| format!("{source:?}"));
                format!("the event's source is {source}, allowed are {}", self.sources())
            }
            Verdict::Where => format!("where is not true: {}", rule()),
            Verdict::Rows => format!("rows is not true: {}", rule()),
            Verdict::Match | Verdict::Tenant | Verdict::Channel => "every stage says yes".into(),
        }
    }

    /// The verdict about an event, and why, by what is known here: a rule is its parts that are not true, with the arguments and the
    /// viewer filled in.
    pub(crate) fn explain(&self, event: &Event) -> (Verdict, String) {
        let verdict = self.judge(event);
        let rule = || match self.key().len() {
            0..=LONGEST => predicate::describe_unmet(self.parts(verdict), event),
            length => format!("a condition of {length} characters"),
        };
        (verdict, self.describe(verdict, event, rule))
    }
}
