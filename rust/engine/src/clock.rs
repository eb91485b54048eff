//! The one way by which time comes to the engine: rates, timers, expiry, time-outs and histories' age ask a [`Clock`], which tests can set.
//!
//! What waits for the machine itself (a bus, a reader that has to read, the end of a drain) goes by [`within`] and [`pause`], in the
//! machine's own time, whatever a test has set. The servers of a bus have clocks of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// What time it is for one manager. Clones are one clock.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Hand>>);

/// A clock that goes when it is told to.
#[derive(Debug)]
struct Hand {
    began: Instant,
    began_at: DateTime<Utc>,
    /// Nanoseconds since then.
    passed: AtomicU64,
    moved: tokio::sync::Notify,
}

impl Clock {
    /// The machine's.
    pub fn system() -> Clock {
        Clock(None)
    }

    /// One that stands at this moment until it is [advanced](Clock::advance).
    pub fn stopped_at(began_at: DateTime<Utc>) -> Clock {
        let (began, passed, moved) = (Instant::now(), AtomicU64::new(0), tokio::sync::Notify::new());
        Clock(Some(Arc::new(Hand { began, began_at, passed, moved })))
    }

    /// Moves it on. The machine's goes by itself.
    pub fn advance(&self, by: Duration) {
        if let Some(hand) = &self.0 {
            hand.passed.fetch_add(by.as_nanos() as u64, SeqCst);
            hand.moved.notify_waiters();
        }
    }

    /// A moment to measure from.
    pub fn now(&self) -> Instant {
        match &self.0 {
            // Tokio's, which Rust's tests can stop; elsewhere it is the machine's.
            None => tokio::time::Instant::now().into_std(),
            Some(hand) => hand.began + hand.passed(),
        }
    }

    /// The time of day.
    pub fn utc(&self) -> DateTime<Utc> {
        match &self.0 {
            None => Utc::now(),
            Some(hand) => hand.began_at + TimeDelta::from_std(hand.passed()).unwrap_or(TimeDelta::MAX),
        }
    }

    /// Resolves when the moment has come.
    pub async fn sleep_until(&self, at: Instant) {
        let Some(hand) = &self.0 else {
            return tokio::time::sleep_until(at.into()).await;
        };
        loop {
            let moved = hand.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if self.now() >= at {
                return;
            }
            moved.await;
        }
    }
}

/// A stretch of the machine's time.
pub struct Slice(Instant);

impl Slice {
    /// One that begins now.
    pub fn of(length: Duration) -> Slice {
        Slice(Instant::now() + length)
    }

    /// Whether it has passed.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.0
    }
}

impl Hand {
    fn passed(&self) -> Duration {
        Duration::from_nanos(self.passed.load(SeqCst))
    }
}

impl governor::clock::Clock for Clock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        Clock::now(self)
    }
}

/// Waits for something of the machine's, at most so long by the machine's own time; `None`: it took longer.
pub async fn within<T>(limit: Duration, something: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, something).await.ok()
}

/// Lets others run for so long, by the machine's own time.
pub async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

#[cfg(test)]
mod tests;
