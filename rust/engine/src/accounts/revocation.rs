//! Revoking: whom it names, who can be named, and who was being authorised meanwhile.
//!
//! Whoever becomes live registers first and asks the log afterwards; whoever revokes writes into the log first and looks for the
//! registered afterwards. So one of the two always finds the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::tasks::Tasks;
use crate::viewer::Viewer;

/// Whose authority ends: those who match all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocation {
    /// A user, of whatever tenant.
    pub user_id: Option<Arc<str>>,
    /// A tenant.
    pub tenant_id: Option<Arc<str>>,
    /// A connection's id, or the label of subscribes of this process.
    pub connection_id: Option<Arc<str>>,
}

impl Revocation {
    /// Whether it names a viewer on a connection; one that names nothing names nobody.
    pub fn names(&self, viewer: Option<&Viewer>, connection_id: Option<&str>) -> bool {
        let is = |given: &Option<Arc<str>>, own: Option<&str>| given.as_deref().is_none_or(|given| Some(given) == own);
        *self != Revocation::default()
            && is(&self.user_id, viewer.and_then(|viewer| viewer.user_id.as_deref()))
            && is(&self.tenant_id, viewer.and_then(|viewer| viewer.tenant_id.as_deref()))
            && is(&self.connection_id, connection_id)
    }
}

/// The revocations that somebody who is being authorised must still be asked about.
#[derive(Default)]
pub struct Revocations {
    log: Mutex<Log>,
    /// Who they are is known: they are marked, and no revocation is kept for them.
    known: Mutex<Vec<Weak<Marked>>>,
}

#[derive(Default)]
struct Log {
    next: u64,
    entries: VecDeque<(u64, Arc<Revocation>)>,
    /// How many authorisations began at which number.
    open: BTreeMap<u64, usize>,
}

/// An authorisation under way.
pub enum Authorisation {
    /// Whose it is will be decided: revocations from its beginning on are kept until it is dropped.
    Open(Open),
    /// It is a viewer's, however long that takes to go on.
    Known(Arc<Marked>),
}

/// The place of an authorisation in the log.
pub struct Open {
    since: u64,
    log: Arc<Revocations>,
}

/// A viewer who may have been revoked meanwhile.
pub struct Marked {
    viewer: Arc<Viewer>,
    connection_id: Option<Arc<str>>,
    is_revoked: AtomicBool,
}

impl Revocations {
    /// An authorisation begins.
    pub fn begin(self: &Arc<Self>) -> Authorisation {
        let mut log = self.log.lock();
        let since = log.next;
        *log.open.entry(since).or_default() += 1;
        Authorisation::Open(Open { since, log: self.clone() })
    }

    /// An authorisation begins of a viewer who is known already.
    pub fn begin_of(&self, viewer: Arc<Viewer>, connection_id: Option<Arc<str>>) -> Authorisation {
        let marked = Arc::new(Marked { viewer, connection_id, is_revoked: AtomicBool::new(false) });
        let mut known = self.known.lock();
        if known.len() == known.capacity() {
            known.retain(|one| one.strong_count() > 0);
        }
        known.push(Arc::downgrade(&marked));
        Authorisation::Known(marked)
    }

    /// Notes a revocation for those who are being authorised.
    pub fn note(&self, revocation: Arc<Revocation>) {
        for one in self.known.lock().iter().filter_map(Weak::upgrade) {
            if revocation.names(Some(&one.viewer), one.connection_id.as_deref()) {
                one.is_revoked.store(true, SeqCst);
            }
        }
        let mut log = self.log.lock();
        let number = log.next;
        log.next += 1;
        if !log.open.is_empty() {
            log.entries.push_back((number, revocation));
        }
    }
}

impl Authorisation {
    /// Whether somebody with this outcome was revoked since it began.
    pub fn is_revoked(&self, viewer: &Viewer, connection_id: Option<&str>) -> bool {
        let open = match self {
            Authorisation::Open(open) => open,
            Authorisation::Known(marked) => return marked.is_revoked.load(SeqCst),
        };
        let log = open.log.log.lock();
        let since = log.entries.iter().filter(|(number, _)| *number >= open.since);
        since.into_iter().any(|(_, revocation)| revocation.names(Some(viewer), connection_id))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut log = self.log.log.lock();
        if let Some(count) = log.open.get_mut(&self.since) {
            *count -= 1;
            if *count == 0 {
                log.open.remove(&self.since);
            }
        }
        let oldest = log.open.first_key_value().map_or(u64::MAX, |(since, _)| *since);
        while log.entries.front().is_some_and(|(number, _)| *number < oldest) {
            log.entries.pop_front();
        }
    }
}

/// Somebody live who can be revoked.
pub trait Revocable: Send + Sync {
    /// Ends it where it is named. Returns whether this was what ended it; `None` where it is not named.
    fn revoke(&self, revocation: &Revocation) -> Option<bool>;
    /// What it may still be handing to its transport; `None` where there is none.
    fn handing(&self) -> Option<Arc<Tasks>>;
}

/// Who is live, by what a revocation may name: it costs what it finds, not what is connected.
#[derive(Default)]
pub struct Registry {
    names: DashMap<Name, FxHashMap<u64, Weak<dyn Revocable>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    User(Arc<str>),
    Tenant(Arc<str>),
    Connection(Arc<str>),
}

/// An entry of the registry, until it is dropped.
pub struct Registered {
    registry: Arc<Registry>,
    number: u64,
    names: Vec<Name>,
}

impl Registry {
    /// Enters somebody under a number of his own.
    pub fn register(
        self: &Arc<Self>,
        number: u64,
        viewer: Option<&Viewer>,
        connection_id: Option<&Arc<str>>,
        revocable: &Weak<dyn Revocable>,
    ) -> Registered {
        let user = viewer.and_then(|viewer| viewer.user_id.clone()).map(Name::User);
        let tenant = viewer.and_then(|viewer| viewer.tenant_id.clone()).map(Name::Tenant);
        let names = [user, tenant, connection_id.cloned().map(Name::Connection)];
        let names: Vec<Name> = names.into_iter().flatten().collect();
        for name in &names {
            self.names.entry(name.clone()).or_default().insert(number, revocable.clone());
        }
        Registered { registry: self.clone(), number, names }
    }

    /// Everybody whom a revocation may name; whether it does is asked of each.
    pub fn find(&self, revocation: &Revocation) -> Vec<Arc<dyn Revocable>> {
        // The narrowest name first.
        let name = None
            .or_else(|| revocation.connection_id.clone().map(Name::Connection))
            .or_else(|| revocation.user_id.clone().map(Name::User))
            .or_else(|| revocation.tenant_id.clone().map(Name::Tenant));
        let found = name.and_then(|name| {
            let entries = self.names.get(&name)?;
            Some(entries.values().filter_map(Weak::upgrade).collect())
        });
        found.unwrap_or_default()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        for name in self.names.drain(..) {
            if let dashmap::Entry::Occupied(mut entries) = self.registry.names.entry(name) {
                entries.get_mut().remove(&self.number);
                if entries.get().is_empty() {
                    entries.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
