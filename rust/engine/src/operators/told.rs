//! What an operator is told beside figures and records: what cannot be meant, once each, and on request why an event reached nobody.
//!
//! It stands at three places of an event's way: where the event is published, where it comes from the bus, and where it was judged. It
//! changes nothing of what becomes of the event. What is remembered is bounded, since others choose the names.

use std::fmt::Display;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use chrono::Timelike;
use foldhash::HashSet;
use parking_lot::Mutex;

use super::audit::Audit;
use super::metrics::Metrics;
use crate::event::Event;
use crate::matching::{Declared, DeclaredChannel, Named};
use crate::predicate::IllTyped;

/// So much of each kind is told; beyond that nothing is.
const MOST: usize = 1000;
/// So many channels or types are listed in a text.
const LISTED: usize = 5;
/// A name in a text is cut after this many characters.
const LONGEST: usize = 200;

/// Tells an operator.
pub struct Told {
    audit: Arc<Audit>,
    metrics: Arc<Metrics>,
    declared: Declared,
    /// The names of the declarations' fields, in their order.
    fields: Box<[Arc<str>]>,
    /// Hashes of what was told, by kind: names may be long.
    known: [Mutex<HashSet<u64>>; 5],
    hashing: RandomState,
    /// Whether somebody reads why events reach nobody.
    followed: Arc<AtomicBool>,
    /// The second of the day of the event by which that was last asked for.
    asked: AtomicU32,
}

/// What is told.
#[derive(Clone, Copy, Debug)]
enum Oddity {
    /// An event without a tenant, where everybody must have one.
    NoTenant,
    /// An entry of the bus that cannot be read.
    Skipped,
    /// An event on a channel that no declaration names.
    NoChannel,
    /// An event of a type that no declaration on its channel names.
    NoType,
    /// A comparison of two types that have nothing in common.
    IllTyped,
}

impl Told {
    /// Nothing was told yet. `declared` is what the declarations name, `fields` are their fields, in their order.
    pub fn new(audit: Arc<Audit>, metrics: Arc<Metrics>, declared: Declared, fields: Box<[Arc<str>]>) -> Told {
        let (known, followed, asked) = (Default::default(), audit.followed(), AtomicU32::new(u32::MAX));
        Told { audit, metrics, declared, fields, known, hashing: RandomState::new(), followed, asked }
    }

    /// An event was published, or has come from the bus and reached nobody: told where no declaration names it. Returns whether one
    /// does.
    pub fn event(&self, event: &Event) -> bool {
        match self.declared.names(&event.channel, &event.event_type) {
            Named::Yes => return true,
            // A publisher that builds the names wrongly would be told of each name.
            Named::NoChannel => self.tell(Oddity::NoChannel, pattern(&event.channel), || self.no_channel(event)),
            Named::NoType(channel) => {
                self.tell(Oddity::NoType, (&channel.text, &event.event_type), || no_type(event, channel));
            }
        }
        false
    }

    /// Comparisons of one event were unknown, because what stands in it has nothing in common with the other side: counted once for
    /// each declaration, and told.
    pub(crate) fn ill_typed(&self, notes: &[(usize, IllTyped)]) {
        for (at, (index, note)) in notes.iter().enumerate() {
            let Some(field) = self.fields.get(*index) else { continue };
            if !notes[..at].iter().any(|(other, _)| other == index) {
                self.metrics.ill_typed(field);
            }
            self.compared(field, &note.path, note);
        }
    }

    fn compared(&self, field: &str, path: impl Hash, note: &dyn Display) {
        self.tell(Oddity::IllTyped, (field, path), || {
            format!(
                "{field}: {note}. Such a comparison is never true, so the event may reach fewer subscribers than you mean. Publish \
                 the type that the predicate expects, or change the predicate. This is logged once for each field and path; \
                 events_ill_typed counts all of them."
            )
        });
    }

    /// An event without a tenant came from the bus, where everybody must have one.
    pub(crate) fn no_tenant(&self, event: &Event) {
        let why = "multi_tenant=True: events without a tenant come from the bus, and are dropped";
        self.tell(Oddity::NoTenant, &event.channel, || format!("channel {:?}: {why}", &*event.channel));
        if self.is_followed(event) {
            self.reached_nobody(event, format_args!("tenant: {why}"));
        }
    }

    /// An entry of the bus cannot be read.
    pub(crate) fn skipped(&self, channel: &str, reason: &str) {
        self.tell(Oddity::Skipped, channel, || format!("channel {channel:?}: {reason}"));
    }

    /// Whether somebody reads why this event reached nobody. Once for each second of events that is found out anew.
    pub(crate) fn is_followed(&self, event: &Event) -> bool {
        let second = event.published_at.naive_utc().time().num_seconds_from_midnight();
        if self.asked.load(Relaxed) != second {
            self.ask(second);
        }
        self.followed.load(Relaxed)
    }

    #[cold]
    #[inline(never)]
    fn ask(&self, second: u32) {
        self.asked.store(second, Relaxed);
        self.audit.ask();
    }

    /// Says why an event reached nobody; only where that is followed.
    pub(crate) fn reached_nobody(&self, event: &Event, why: impl Display) {
        let Event { event_type, channel, id, .. } = event;
        let (event_type, channel) = (quoted(event_type), quoted(channel));
        self.audit.explain(format!("event {id} of type {event_type} on channel {channel} reached nobody: {why}"));
    }

    fn no_channel(&self, event: &Event) -> String {
        let (event_type, channel) = (quoted(&event.event_type), quoted(&event.channel));
        let texts = self.declared.texts();
        let declared = if texts.is_empty() { "none".to_owned() } else { listed(&texts) };
        let advice = if self.declared.has(&event.event_type) {
            format!(
                "{event_type} is a channel here: were the two swapped? Expected publish_event(event_type, channel, data)"
            )
        } else {
            "Check its name. If only other services read this channel, all is well".to_owned()
        };
        format!(
            "an event of type {event_type} was published on channel {channel}, and no @subscription of this manager has that \
             channel: none of its subscribers can get the event. {advice}. Channels here: {declared}. This is logged once for \
             channels of this form."
        )
    }

    fn tell(&self, oddity: Oddity, what: impl Hash, text: impl FnOnce() -> String) {
        let hash = self.hashing.hash_one(what);
        let told = {
            let mut known = self.known[oddity as usize].lock();
            if known.len() == MOST || !known.insert(hash) {
                return;
            }
            known.len()
        };
        let mut text = text();
        if told == MOST {
            text.push_str(" Much of this kind was logged by now: this is the last time.");
        }
        self.audit.warn(text);
    }
}

fn no_type(event: &Event, declared: &DeclaredChannel) -> String {
    let (event_type, channel) = (quoted(&event.event_type), quoted(&event.channel));
    let is_of_table = matches!(&*event.event_type, "insert" | "update" | "delete");
    let tracked = if is_of_table { " Tracked tables publish this type." } else { "" };
    format!(
        "an event of type {event_type} was published on channel {channel}, and no @subscription on {} is about that type: no \
         subscriber of this manager can get the event. Check the type, or add it to event_types.{tracked} If nobody here is meant \
         to get it, all is well. Types there: {}. This is logged once for each type and channel as declared.",
        quoted(&declared.text),
        listed(&declared.types())
    )
}

/// What names that are built alike have in common: the text before the first `:`, and how many there are.
fn pattern(channel: &str) -> (&str, usize) {
    (channel.split(':').next().unwrap_or_default(), channel.matches(':').count())
}

/// A few of some names.
fn listed(names: &[&str]) -> String {
    let first: Vec<String> = names.iter().take(LISTED).map(|name| quoted(name)).collect();
    let more = names.len() - first.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", first.join(", "))
}

fn quoted(name: &str) -> String {
    format!("{:?}", cut(name))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
