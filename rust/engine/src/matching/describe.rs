//! A verdict in words, for operators: what the event has, and what was asked of it.

use super::condition::{Condition, Verdict};
use crate::event::Event;
use crate::predicate::{self, Set};

impl Condition {
    /// Why an event on the right channel does not match; `rule` is what was declared, in words.
    pub(crate) fn describe(&self, verdict: Verdict, event: &Event, rule: impl FnOnce() -> String) -> String {
        match verdict {
            Verdict::EventType => {
                let types: Vec<_> = self.event_types().into_iter().flat_map(Set::names).collect();
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
        let rule = || predicate::describe_unmet(self.parts(verdict), event);
        (verdict, self.describe(verdict, event, rule))
    }
}
