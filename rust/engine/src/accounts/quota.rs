//! How many at once and how many a second, and for whom. A limit is asked before the work that it protects; what is held is given back
//! by dropping it, and nothing is kept of accounts that hold nothing and have their whole rate again.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::weights::{AccountLoad, ConnectionLoad, Weights};
use crate::clock::Clock;
use crate::limits::Limits;
use crate::viewer::Viewer;

/// Whom a limit counts for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// A user of a tenant.
    User(Option<Arc<str>>, Arc<str>),
    /// An anonymous viewer, by the number of his connection.
    Connection(u64),
    /// A tenant.
    Tenant(Arc<str>),
}

/// The accounts of one viewer.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// `None` in this process, where nobody is named.
    pub user: Option<Arc<Account>>,
    /// `None` without a tenant.
    pub tenant: Option<Arc<Account>>,
}

impl Accounts {
    /// Those of a viewer, on a connection or in this process.
    pub fn of(viewer: &Viewer, connection: Option<u64>) -> Accounts {
        let user = match (&viewer.user_id, connection) {
            (Some(user), _) => Some(Account::User(viewer.tenant_id.clone(), user.clone())),
            (None, number) => number.map(Account::Connection),
        };
        let tenant = viewer.tenant_id.clone().map(Account::Tenant);
        Accounts { user: user.map(Arc::new), tenant: tenant.map(Arc::new) }
    }
}

/// All that is counted by account.
pub struct Quotas {
    /// Acknowledged connections.
    pub connections: Arc<Tallies>,
    /// Live subscriptions.
    pub subscriptions: Arc<Tallies>,
    /// Subscribes a second, by user.
    pub subscribes: Option<Rates>,
    /// Events a second, by user.
    pub events: Option<Arc<Rates>>,
    /// What memory is taken.
    pub weights: Arc<Weights>,
    /// What each user holds and sends.
    loads: DashMap<Arc<Account>, Arc<AccountLoad>>,
    clock: Clock,
}

/// How often idle accounts are forgotten, at the least.
const SWEEP: Duration = Duration::from_secs(60);

impl Quotas {
    /// Forgets idle accounts now and then, until it is aborted.
    pub async fn run(&self) {
        loop {
            self.clock.sleep_until(self.clock.now() + SWEEP).await;
            self.subscribes.iter().chain(self.events.as_deref()).for_each(|rates| _ = rates.sweep());
            let now = self.clock.now();
            self.loads.retain(|_, load| !load.is_idle(now));
            self.loads.shrink_to_fit();
        }
    }

    /// Nothing is held.
    pub fn new(limits: &Limits, clock: &Clock) -> Quotas {
        let burst = u32::try_from(limits.burst).unwrap_or(u32::MAX);
        Quotas {
            connections: Tallies::new(limits.max_connections_per_user, limits.max_connections_per_tenant),
            subscriptions: Tallies::new(limits.max_subscriptions_per_user, limits.max_subscriptions_per_tenant),
            subscribes: limits.subscribes_per_second.map(|rate| Rates::new(quota(rate, burst), clock)),
            events: limits.events_per_second_per_user.map(|rate| Arc::new(Rates::new(events(rate), clock))),
            weights: Weights::new(limits),
            loads: DashMap::new(),
            clock: clock.clone(),
        }
    }

    /// What a new connection of an account holds. A user's come together; anybody else has his own, in this process without a limit.
    pub fn load(&self, accounts: &Accounts) -> Arc<ConnectionLoad> {
        let make = || AccountLoad::new(&self.weights, accounts.user.is_some());
        ConnectionLoad::new(match &accounts.user {
            Some(account) if matches!(**account, Account::User(..)) => {
                self.loads.entry(account.clone()).or_insert_with(make).clone()
            }
            _ => make(),
        })
    }
}

// ---- how many at once ----

/// What a user and a tenant may hold at once.
#[derive(Debug)]
pub struct Tallies {
    per_user: Option<Tally>,
    per_tenant: Option<Tally>,
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The user's.
    User,
    /// The tenant's.
    Tenant,
}

/// One of what may be held, until it is dropped.
#[derive(Debug)]
pub struct Shares(Arc<Seat>);

/// What the viewer of one connection holds of one thing that is limited.
#[derive(Debug)]
pub struct Seat {
    /// Whose it is.
    pub accounts: Accounts,
    tallies: Arc<Tallies>,
}

/// A tally and the account that holds something there.
type Held<'a> = Option<(&'a Tally, &'a Arc<Account>)>;

impl Seat {
    /// A seat that holds nothing.
    pub fn new(accounts: Accounts, tallies: &Arc<Tallies>) -> Arc<Seat> {
        Arc::new(Seat { accounts, tallies: tallies.clone() })
    }

    /// Takes one more, or none.
    pub fn take(self: &Arc<Self>) -> Result<Shares, Reached> {
        let (user, tenant) = self.held();
        if !user.is_none_or(|(tally, account)| tally.take(account)) {
            return Err(Reached::User);
        }
        if !tenant.is_none_or(|(tally, account)| tally.take(account)) {
            user.inspect(|(tally, account)| tally.give_back(account));
            return Err(Reached::Tenant);
        }
        Ok(Shares(self.clone()))
    }

    /// Where it counts.
    fn held(&self) -> (Held<'_>, Held<'_>) {
        let Tallies { per_user, per_tenant } = &*self.tallies;
        let Accounts { user, tenant } = &self.accounts;
        (per_user.as_ref().zip(user.as_ref()), per_tenant.as_ref().zip(tenant.as_ref()))
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        let (user, tenant) = self.0.held();
        user.into_iter().chain(tenant).for_each(|(tally, account)| tally.give_back(account));
    }
}

impl Tallies {
    fn new(per_user: Option<usize>, per_tenant: Option<usize>) -> Arc<Tallies> {
        let tally = |most| Tally { most, held: DashMap::new() };
        Arc::new(Tallies { per_user: per_user.map(tally), per_tenant: per_tenant.map(tally) })
    }
}

#[derive(Debug)]
struct Tally {
    most: usize,
    held: DashMap<Arc<Account>, usize>,
}

impl Tally {
    fn take(&self, account: &Arc<Account>) -> bool {
        let mut held = self.held.entry(account.clone()).or_default();
        let has_room = *held < self.most;
        *held += usize::from(has_room);
        has_room
    }

    fn give_back(&self, account: &Arc<Account>) {
        if let dashmap::Entry::Occupied(mut held) = self.held.entry(account.clone()) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

// ---- how many a second ----

/// A rate with `burst` at once, refilled evenly.
fn quota(per_second: f64, burst: u32) -> Quota {
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    // Governor counts in nanoseconds of 64 bits, which the time to refill all must not overflow.
    let longest = Duration::from_nanos(u64::MAX / 4 / u64::from(burst.get()));
    let period = Duration::try_from_secs_f64(per_second.recip()).unwrap_or(longest);
    let period = period.clamp(Duration::from_nanos(1), longest);
    Quota::with_period(period).unwrap_or_else(|| Quota::per_second(burst)).allow_burst(burst)
}

/// A rate of events: as many at once as a second allows.
fn events(per_second: f64) -> Quota {
    // The conversion saturates.
    quota(per_second, per_second as u32)
}

/// Rates that count for one account each.
pub struct Rates {
    limiter: RateLimiter<Arc<Account>, DashMapStateStore<Arc<Account>>, Clock, NoOpMiddleware<Instant>>,
    asked: AtomicUsize,
}

/// Accounts that are idle are forgotten each time after this many questions.
const BETWEEN_SWEEPS: usize = 4096;

impl Rates {
    fn new(quota: Quota, clock: &Clock) -> Rates {
        Rates { limiter: RateLimiter::dashmap_with_clock(quota, clock.clone()), asked: AtomicUsize::new(0) }
    }

    /// Whether one more may come now.
    pub fn take(&self, account: &Arc<Account>) -> bool {
        if self.asked.fetch_add(1, Relaxed) % BETWEEN_SWEEPS == BETWEEN_SWEEPS - 1 {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(account).is_ok()
    }

    /// Forgets accounts that have their whole rate again, and gives their memory back; returns how many are left.
    pub fn sweep(&self) -> usize {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        self.limiter.len()
    }
}

/// A rate that counts for nobody in particular.
pub struct Rate(RateLimiter<NotKeyed, InMemoryState, Clock, NoOpMiddleware<Instant>>);

impl Rate {
    /// `burst` at once, refilled evenly.
    pub fn new(per_second: f64, burst: u32, clock: &Clock) -> Rate {
        Rate(RateLimiter::direct_with_clock(quota(per_second, burst), clock.clone()))
    }

    /// Whether one more may come now.
    pub fn take(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// The rate of one subscription's events.
pub struct EventRate {
    own: Option<Rate>,
    user: Option<(Arc<Rates>, Arc<Account>)>,
}

impl EventRate {
    /// `None` where nothing limits it.
    pub fn new(own: Option<f64>, quotas: &Quotas, accounts: &Accounts) -> Option<EventRate> {
        let own = own.map(|rate| Rate(RateLimiter::direct_with_clock(events(rate), quotas.clock.clone())));
        let user = quotas.events.clone().zip(accounts.user.clone());
        (own.is_some() || user.is_some()).then_some(EventRate { own, user })
    }

    /// Whether one more event may come now. One that the subscription's own rate refuses does not count for the user.
    pub fn take(&self) -> bool {
        self.own.as_ref().is_none_or(Rate::take)
            && self.user.as_ref().is_none_or(|(rates, account)| rates.take(account))
    }
}

#[cfg(test)]
mod tests;
