//! One queue of deadlines for all connections and subscriptions, served by one task. Where thousands are due at once they are told
//! over some hundred milliseconds, so that those who go on are not kept waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::{Clock, pause};

/// Something that wants to be told when its time has come.
pub trait Timed: Send + Sync {
    /// The time has come. The alarm that it holds is gone, unless it has set another meanwhile.
    fn tick(&self, now: Instant);
}

/// When one [`Timed`] is due; at most one alarm of each is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    at: Instant,
    number: u64,
}

/// After so many that were due it takes a breath.
const BATCH: usize = 32;
const BREATH: Duration = Duration::from_millis(1);

/// The deadlines of an engine.
pub struct Timers {
    clock: Clock,
    queue: Mutex<Queue>,
    earlier: Notify,
}

#[derive(Default)]
struct Queue {
    alarms: BTreeMap<Alarm, Weak<dyn Timed>>,
    next: u64,
}

impl Timers {
    /// No deadlines yet.
    pub fn new(clock: Clock) -> Arc<Timers> {
        Arc::new(Timers { clock, queue: Mutex::default(), earlier: Notify::new() })
    }

    /// Sets an alarm in place of the one that is held, where it differs.
    pub fn set(&self, held: &mut Option<Alarm>, at: Option<Instant>, timed: Weak<dyn Timed>) {
        if held.map(|alarm| alarm.at) == at {
            return;
        }
        let mut queue = self.queue.lock();
        if let Some(alarm) = held.take() {
            queue.alarms.remove(&alarm);
        }
        let Some(at) = at else { return };
        queue.next += 1;
        let alarm = Alarm { at, number: queue.next };
        let is_first = queue.alarms.first_key_value().is_none_or(|(first, _)| alarm < *first);
        queue.alarms.insert(alarm, timed);
        *held = Some(alarm);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Tells everybody whose time has come, until it is aborted.
    pub async fn run(self: Arc<Self>) {
        loop {
            let first = self.queue.lock().alarms.first_key_value().map(|(alarm, _)| alarm.at);
            match first {
                None => self.earlier.notified().await,
                Some(at) => {
                    tokio::select! {
                        () = self.clock.sleep_until(at) => self.tell().await,
                        () = self.earlier.notified() => {}
                    }
                }
            }
        }
    }

    async fn tell(&self) {
        for told in 1.. {
            let now = self.clock.now();
            let due = {
                let mut queue = self.queue.lock();
                match queue.alarms.first_entry() {
                    Some(entry) if entry.key().at <= now => entry.remove(),
                    _ => return,
                }
            };
            // Told without the lock: it may set its next alarm.
            if let Some(timed) = due.upgrade() {
                timed.tick(now);
            }
            if told % BATCH == 0 {
                pause(BREATH).await;
            }
        }
    }
}
