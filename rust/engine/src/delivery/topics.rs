//! Who listens to what: channels by name, in each the index of every tenant, and the way of an event through them.

use std::sync::{Arc, Weak};

use dashmap::DashMap;
use foldhash::HashMap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::class::{ClassKey, ResolveClass};
use super::group::{Group, Results};
use super::past::Past;
use super::resolver::Shared;
use super::shelf::Shelf;
use crate::bus::{EventBus, Watched};
use crate::event::{Audience, Event, Offset};
use crate::graphql::Source;
use crate::matching::{Index, Withheld};
use crate::operators::Told;

/// The channels that somebody listens to; the bus watches these.
pub(crate) struct Channels {
    by_name: DashMap<Arc<str>, Arc<Channel>, RandomState>,
    bus: Arc<dyn EventBus>,
}

/// All who hear of a channel. Its lock orders the channel's events against each other and against those who join.
pub(crate) struct Channel {
    name: Arc<str>,
    pub(crate) state: Mutex<ChannelState>,
    /// What those who are catching up share.
    past: Mutex<Weak<Past>>,
}

#[derive(Default)]
pub(crate) struct ChannelState {
    /// The offset of the last event.
    pub(crate) delivered: Offset,
    /// By tenant.
    pub(crate) topics: HashMap<Option<Arc<str>>, Topic>,
    /// Those who are about to join, and need `delivered` to be kept.
    held: usize,
    /// A declaration on this channel is about every type.
    pub(crate) any_type: bool,
    /// Else the type of the last event that reached nobody and that a declaration names: most that come are of one type.
    named: Option<Arc<str>>,
    /// It was taken out of the map: whoever wants to join must look it up again.
    dead: bool,
}

/// One tenant's part of a channel.
#[derive(Default)]
pub(crate) struct Topic {
    pub(crate) index: Index<Arc<Group>>,
    /// Each with the number of its users.
    pub(crate) classes: HashMap<Arc<ClassKey>, (Arc<ResolveClass>, usize)>,
}

/// Why an event reached nobody on a channel that the index of no tenant knows, in the words of `explain`.
pub(crate) const NOBODY_LISTENS: &str = "channel: no subscription of this process listens to it (a subscription whose where or \
                                         rows can never be true for its viewer does not listen)";

/// So many conditions, and so many tenants, are named in a text.
const NAMED: usize = 3;

impl Channels {
    pub(crate) fn new(bus: Arc<dyn EventBus>) -> Channels {
        Channels { by_name: DashMap::default(), bus }
    }

    /// The channel of this name, where somebody listens to it.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Channel>> {
        self.by_name.get(name).map(|found| found.value().clone())
    }

    /// The channel of this name, kept in the map until it is released, and since when the bus hands it over.
    pub(crate) fn hold(&self, name: &str) -> (Arc<Channel>, Watched) {
        loop {
            let channel = match self.by_name.get(name).map(|found| found.value().clone()) {
                Some(channel) => channel,
                None => {
                    let name: Arc<str> = name.into();
                    let make = || Channel { name: name.clone(), state: Mutex::default(), past: Mutex::default() };
                    self.by_name.entry(name.clone()).or_insert_with(|| Arc::new(make())).value().clone()
                }
            };
            let mut state = channel.state.lock();
            if !state.dead {
                state.held += 1;
                drop(state);
                // Nobody takes it out of the map from now on, so nobody unwatches it.
                let watched = self.bus.watch(&channel.name);
                return (channel, watched);
            }
        }
    }

    /// Gives up a hold; a channel that nobody needs goes away.
    pub(crate) fn release(&self, channel: &Arc<Channel>) {
        let mut state = channel.state.lock();
        state.held -= 1;
        self.forget_if_unused(channel, &mut state);
    }

    /// Takes a channel out of the map that nobody needs.
    pub(crate) fn forget_if_unused(&self, channel: &Arc<Channel>, state: &mut ChannelState) {
        if state.held == 0 && state.topics.is_empty() && !state.dead {
            state.dead = true;
            // Before it can be made anew: the bus must not forget the new one.
            self.bus.unwatch(&channel.name);
            self.by_name.remove_if(&channel.name, |_, found| Arc::ptr_eq(found, channel));
        }
    }
}

impl Channel {
    /// Hands an event to everybody who is to hear of it; returns from how many it was withheld.
    pub(crate) fn receive(&self, event: &Arc<Event>, shared: &Shared) -> Withheld {
        let mut calls = FxHashMap::default();
        let mut results = Results::new(event, Source::Passthrough(&event.data), shared);
        let mut state = self.state.lock();
        state.delivered = event.position.offset;
        let (mut withheld, mut by_nobody) = (Withheld::default(), true);
        let mut visit = |topic: &Topic| {
            withheld += topic.index.matches(event, |group: &Arc<Group>| {
                by_nobody = false;
                group.receive(event, &mut results, &mut calls);
            });
        };
        match &event.audience {
            Audience::Tenant(tenant) => state.topics.get(tenant).into_iter().for_each(&mut visit),
            Audience::All => state.topics.values().for_each(&mut visit),
        }
        // Offered under the channel's lock: a later event must not be offered before this one.
        for (class, groups) in calls.into_values() {
            class.offer(event, groups);
        }
        if by_nobody && (!state.is_named(event) || shared.told.is_followed(event)) {
            state.unheard(event, &shared.told);
        }
        withheld
    }

    /// What those who are catching up share, for as long as one of them has it.
    pub(crate) fn past(&self, shelf: &Arc<Shelf>) -> Arc<Past> {
        let mut past = self.past.lock();
        past.upgrade().unwrap_or_else(|| {
            let made = Past::new(self.name.clone(), shelf.clone());
            *past = Arc::downgrade(&made);
            made
        })
    }

    /// Everybody here is told that events may have been lost.
    pub(crate) fn gap(&self) {
        let state = self.state.lock();
        for topic in state.topics.values() {
            topic.index.groups().for_each(|group| group.each_member(|mailbox| mailbox.gap()));
        }
    }
}

impl ChannelState {
    /// Whether an event is known to be named by a declaration.
    fn is_named(&self, event: &Event) -> bool {
        self.any_type || self.named.as_ref().is_some_and(|named| **named == *event.event_type)
    }

    /// An event reached nobody, and that may be of interest to whoever looks after the application.
    #[cold]
    #[inline(never)]
    fn unheard(&mut self, event: &Event, told: &Told) {
        if told.event(event) {
            self.named = Some(event.event_type.clone());
        }
        if told.is_followed(event) {
            told.reached_nobody(event, self.why_not(event));
        }
    }

    /// Why an event matched for nobody, in the words of `explain`: the stage and the reason, of a few.
    fn why_not(&self, event: &Event) -> String {
        let asked: Vec<&Topic> = match &event.audience {
            Audience::Tenant(tenant) => self.topics.get(tenant).into_iter().collect(),
            Audience::All => self.topics.values().collect(),
        };
        let mut why = if self.topics.is_empty() {
            NOBODY_LISTENS.to_owned()
        } else if asked.is_empty() {
            let tenants = self.topics.keys().take(NAMED);
            let tenants: Vec<String> = tenants.map(|tenant| Audience::Tenant(tenant.clone()).to_string()).collect();
            let more = if self.topics.len() > NAMED { " and others" } else { "" };
            format!(
                "tenant: the event is for {}, the subscriptions here are for {}{more}",
                event.audience,
                tenants.join(", ")
            )
        } else {
            let groups = asked.iter().flat_map(|topic| topic.index.groups());
            let verdicts = groups.take(NAMED).map(|group| {
                let (verdict, reason) = group.condition.explain(event);
                format!("{}: {reason}", verdict.name())
            });
            let verdicts: Vec<String> = verdicts.collect();
            let all: usize = asked.iter().map(|topic| topic.index.len()).sum();
            let more = all - verdicts.len();
            let more = if more > 0 { format!("; and {more} other conditions are not met") } else { String::new() };
            format!("{}{more}", verdicts.join("; "))
        };
        if self.held > 0 {
            // They read it from the bus's history, or join after it.
            why.push_str(&format!("; {} that are about to join may read it later", self.held));
        }
        why
    }
}
