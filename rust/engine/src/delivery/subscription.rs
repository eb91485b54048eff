//! A live subscription: where it hears of events, how it joins its channel's index and leaves it, and how it ends.

use std::sync::Arc;

use parking_lot::Mutex;

use super::class::{ClassKey, ResolveClass};
use super::dispatcher::Dispatcher;
use super::group::Group;
use super::mailbox::{End, Mailbox};
use super::past::Reader;
use super::resolver::Generation;
use super::topics::Channel;
use crate::accounts::{Accounts, Kept, Shares};
use crate::admission::Admission;
use crate::event::Offset;
use crate::graphql::{Kind, Plan};
use crate::operators::{Counted, Ended};

/// A live subscription. It ends by [`Subscription::close`], at the latest when it is dropped.
pub struct Subscription {
    /// Its queue.
    pub mailbox: Arc<Mailbox>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) place: Mutex<Place>,
    /// What it takes of what is counted and limited, until it ends: whoever feeds it may let go of it later.
    pub(crate) held: Mutex<Option<(Counted, Shares, Kept)>>,
}

/// Where a subscription hears of events.
#[derive(Default)]
pub(crate) enum Place {
    /// It hears of nothing, because nothing can match or because it is closed.
    #[default]
    Nowhere,
    /// In the index.
    Live {
        channel: Arc<Channel>,
        tenant: Option<Arc<str>>,
        group: Arc<Group>,
        plan: Arc<Plan>,
        resolve: Option<Arc<ResolveClass>>,
    },
    /// It waits for the bus, or reads history first.
    OnTheWay(tokio::task::AbortHandle),
    /// A generator feeds it.
    Generating(Arc<Generation>),
}

/// What a subscription needs to join its channel.
pub(crate) struct Ticket {
    pub(crate) admission: Admission,
    /// Kept until this is dropped.
    pub(crate) channel: Arc<Channel>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// Who waits for its calls.
    pub(crate) accounts: Accounts,
}

impl Ticket {
    /// Begins to catch up.
    pub(crate) fn past(&self) -> Reader {
        let Admission { viewer, condition, .. } = &self.admission;
        let past = self.channel.past(&self.dispatcher.shelf);
        past.enter(viewer.tenant_id.as_ref(), condition, || self.admission.questions())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.dispatcher.channels.release(&self.channel);
    }
}

impl Subscription {
    /// Puts it into the index of its channel, which the bus hands over since `since`. With a `cursor` only where everything up to
    /// the channel's last event has been read.
    pub(crate) fn join(&self, ticket: &Ticket, since: Offset, cursor: Option<Offset>) -> bool {
        let Ticket { admission: Admission { operation, viewer, condition }, channel, .. } = ticket;
        let mut state = channel.state.lock();
        let since = since.max(state.delivered);
        if cursor.is_some_and(|cursor| since > cursor) {
            return false;
        }
        let mut place = self.place.lock();
        if self.mailbox.is_over() || condition.is_never() {
            return true;
        }
        self.mailbox.listen_since(since.max(cursor.unwrap_or_default()));
        state.any_type |= operation.field.declaration.event_types.is_none();
        let topic = state.topics.entry(viewer.tenant_id.clone()).or_default();
        let resolve = (operation.field.declaration.kind != Kind::Passthrough).then(|| {
            let (key, watcher) = ClassKey::of(operation, viewer);
            let make = || {
                (
                    {
                        let (accounts, shared) = (ticket.accounts.clone(), self.dispatcher.shared.clone());
                        ResolveClass::new(key.clone(), operation, watcher, accounts, shared)
                    },
                    0,
                )
            };
            let (class, users) = topic.classes.entry(key.clone()).or_insert_with(make);
            *users += 1;
            class.clone()
        });
        let group = match topic.index.get(condition) {
            Some(group) => group.clone(),
            None => {
                let group = Group::new(condition.clone());
                topic.index.insert(condition, group.clone());
                group
            }
        };
        group.join(self.mailbox.clone(), &operation.plan, resolve.clone());
        *place = Place::Live {
            channel: channel.clone(),
            tenant: viewer.tenant_id.clone(),
            group,
            plan: operation.plan.clone(),
            resolve,
        };
        true
    }

    /// A generator feeds it.
    pub(crate) fn set_generating(&self, generation: Arc<Generation>) {
        *self.place.lock() = Place::Generating(generation);
    }

    /// It is not live yet.
    pub(crate) fn set_on_the_way(&self, task: tokio::task::AbortHandle) {
        let mut place = self.place.lock();
        // It may have joined, or may have been closed, before its task was known here.
        if self.mailbox.is_over() {
            task.abort();
        } else if matches!(*place, Place::Nowhere) {
            *place = Place::OnTheWay(task);
        }
    }

    /// Ends it by its reader: nothing more is pushed or can be taken. Returns how many messages were left behind.
    pub fn close(&self, how: Ended) -> usize {
        let left = self.mailbox.close();
        self.retire(how);
        left
    }

    /// Ends it by a decision: what waits is discarded, and the end is all that its reader still takes. Returns whether this was what
    /// ended it.
    pub(crate) fn cut(&self, end: End, how: Ended) -> bool {
        let is_first = self.mailbox.end(end);
        self.retire(how);
        is_first
    }

    /// Nothing feeds it any more.
    fn retire(&self, how: Ended) {
        let held = self.held.lock().take();
        if held.is_some() {
            self.dispatcher.shared.metrics.ended(how);
        }
        let place = std::mem::replace(&mut *self.place.lock(), Place::Nowhere);
        match place {
            Place::Nowhere => {}
            Place::OnTheWay(task) => task.abort(),
            Place::Generating(generation) => self.dispatcher.shared.resolver.abandon(generation.abandon_key),
            Place::Live { channel, tenant, group, plan, resolve } => {
                self.leave(&channel, tenant.as_ref(), &group, &plan, resolve.as_ref());
            }
        }
    }

    fn leave(
        &self,
        channel: &Arc<Channel>,
        tenant: Option<&Arc<str>>,
        group: &Arc<Group>,
        plan: &Arc<Plan>,
        resolve: Option<&Arc<ResolveClass>>,
    ) {
        let mut state = channel.state.lock();
        let tenant = tenant.cloned();
        let Some(topic) = state.topics.get_mut(&tenant) else {
            return;
        };
        if group.leave(&self.mailbox, plan, resolve) {
            topic.index.remove(&group.condition);
        }
        if let Some(resolve) = resolve
            && let Some((_, users)) = topic.classes.get_mut(&resolve.key)
        {
            *users -= 1;
            if *users == 0 {
                topic.classes.remove(&resolve.key);
                resolve.abandon();
            }
        }
        if topic.index.is_empty() {
            state.topics.remove(&tenant);
        }
        self.dispatcher.channels.forget_if_unused(channel, &mut state);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.close(Ended::Disconnect);
    }
}
