//! The audit trail: who was let in, who was refused and why. For operators alone; nothing of it reaches a client.
//!
//! Each kind of record has a rate of its own, so that nobody can fill a disk, and a flood of refusals hides neither revocations nor
//! who was accepted. What is left out is counted, and the next record of its kind says how many.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::accounts::Rate;
use crate::clock::Clock;
use crate::viewer::{Host, Viewer};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection was acknowledged.
    ConnectionAccepted,
    /// It was closed before that.
    ConnectionRefused,
    /// A subscription was refused by a module or a limit.
    SubscribeRefused,
    /// An authority ended in time.
    Expired,
    /// An expiry was moved.
    Refreshed,
    /// It was not, or the context was another one.
    RefreshRefused,
    /// Somebody was revoked.
    Revoked,
    /// A reader was too slow.
    SlowConsumer,
}

const KINDS: [(Kind, &str); 8] = [
    (Kind::ConnectionAccepted, "connection_accepted"),
    (Kind::ConnectionRefused, "connection_refused"),
    (Kind::SubscribeRefused, "subscribe_refused"),
    (Kind::Expired, "expired"),
    (Kind::Refreshed, "refreshed"),
    (Kind::RefreshRefused, "refresh_refused"),
    (Kind::Revoked, "revoked"),
    (Kind::SlowConsumer, "slow_consumer"),
];

/// Records of one kind a second, and how many at once.
const PER_SECOND: f64 = 100.0;
const BURST: u32 = 1000;

/// One record.
#[derive(Clone)]
pub struct Record {
    /// What happened, as `connection_refused`.
    pub event: &'static str,
    /// Why, in words.
    pub reason: Cow<'static, str>,
    /// The viewer's, or what a revocation names.
    pub user_id: Option<Arc<str>>,
    /// Likewise.
    pub tenant_id: Option<Arc<str>>,
    /// The connection's id, or the label of a subscribe of this process.
    pub connection_id: Option<Arc<str>>,
    /// How many records of this kind were left out since the last one.
    pub suppressed: u64,
    /// What the host language keeps of the connection.
    pub host: Option<Host>,
}

/// Takes records and warnings. It is called under locks: it must neither block nor call back.
pub trait Writer: Send + Sync {
    /// One record.
    fn write(&self, record: Record);
    /// What an operator should read beside the trail. Whoever warns sees to it that it is not often.
    fn warn(&self, text: String);
    /// Whether somebody reads what [`Writer::explain`] is given, as far as is known: read for each event that reaches nobody.
    fn followed(&self) -> Arc<AtomicBool> {
        Arc::default()
    }
    /// That is to be found out anew.
    fn ask(&self) {}
    /// Why an event reached nobody, for whoever looks for a mistake. There may be any number of these.
    fn explain(&self, _text: String) {}
}

/// Writes records, within their rates.
pub struct Audit {
    writer: Arc<dyn Writer>,
    rates: [(Rate, AtomicU64); KINDS.len()],
}

impl Audit {
    /// An audit trail that goes there.
    pub fn new(writer: Arc<dyn Writer>, clock: &Clock) -> Audit {
        Audit { writer, rates: KINDS.map(|_| (Rate::new(PER_SECOND, BURST, clock), AtomicU64::new(0))) }
    }

    /// Warns the operator.
    pub fn warn(&self, text: String) {
        self.writer.warn(text);
    }

    /// Whether somebody reads what [`Audit::explain`] is given.
    pub(super) fn followed(&self) -> Arc<AtomicBool> {
        self.writer.followed()
    }

    /// That is to be found out anew.
    pub(super) fn ask(&self) {
        self.writer.ask();
    }

    /// Says why an event reached nobody.
    pub(super) fn explain(&self, text: String) {
        self.writer.explain(text);
    }

    /// Notes what happened to a viewer, as far as he is known.
    pub fn note(
        &self,
        kind: Kind,
        viewer: Option<&Viewer>,
        connection_id: Option<&Arc<str>>,
        host: Option<&Host>,
        reason: impl Into<Cow<'static, str>>,
    ) {
        let (user_id, tenant_id) =
            viewer.map_or((None, None), |viewer| (viewer.user_id.clone(), viewer.tenant_id.clone()));
        self.write(kind, user_id, tenant_id, connection_id.cloned(), host.cloned(), reason.into());
    }

    /// The same by names alone.
    pub fn write(
        &self,
        kind: Kind,
        user_id: Option<Arc<str>>,
        tenant_id: Option<Arc<str>>,
        connection_id: Option<Arc<str>>,
        host: Option<Host>,
        reason: Cow<'static, str>,
    ) {
        let (_, event) = KINDS[kind as usize];
        let (rate, suppressed) = &self.rates[kind as usize];
        if rate.take() {
            let suppressed = suppressed.swap(0, Relaxed);
            self.writer.write(Record { event, reason, user_id, tenant_id, connection_id, suppressed, host });
        } else {
            suppressed.fetch_add(1, Relaxed);
        }
    }
}
