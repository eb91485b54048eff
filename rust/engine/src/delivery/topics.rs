//! Who listens to what: channels by name, in each the index of every tenant, and the way of an event through them.

use std::sync::{Arc, Weak};

use dashmap::DashMap;
use foldhash::HashMap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::group::{Group, Results};
use super::past::Past;
use super::resolver::{ClassKey, ResolveClass, Shared};
use super::shelf::Shelf;
use crate::bus::{EventBus, Watched};
use crate::event::{Audience, Event, Offset};
use crate::graphql::Source;
use crate::matching::{Index, Withheld};

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
        let mut withheld = Withheld::default();
        let mut visit = |topic: &Topic| {
            withheld += topic.index.matches(event, |group: &Arc<Group>| {
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
