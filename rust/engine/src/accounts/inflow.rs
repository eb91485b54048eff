//! How fast an account may send. What comes too fast is neither dropped nor refused: it waits, and nothing more is read meanwhile.

use std::time::{Duration, Instant};

use crate::limits::Limits;

/// How many seconds' worth of bytes may come at once.
const SECONDS_AT_ONCE: f64 = 4.0;
/// Nobody waits longer for one message.
const LONGEST: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// The rates of messages and of their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Paces {
    messages: Option<Pace>,
    bytes: Option<Pace>,
}

/// So many a second, and as many at once as come in this time.
#[derive(Clone, Copy, Debug)]
struct Pace {
    per_second: f64,
    at_once: Duration,
}

impl Pace {
    fn new(per_second: f64, at_once: f64) -> Pace {
        Pace { per_second, at_once: time(at_once / per_second) }
    }
}

impl Paces {
    pub(super) fn new(limits: &Limits) -> Paces {
        let messages = limits.messages_per_second.map(|rate| Pace::new(rate, limits.message_burst as f64));
        Paces { messages, bytes: limits.bytes_per_second.map(|rate| Pace::new(rate, rate * SECONDS_AT_ONCE)) }
    }
}

fn time(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST)
}

/// What has come of an account.
#[derive(Debug, Default)]
pub(super) struct Inflow {
    messages: Meter,
    bytes: Meter,
}

/// When all that has come will have been paid for.
#[derive(Debug, Default)]
struct Meter(Option<Instant>);

impl Inflow {
    /// Takes note of a message; `None` where it may be looked at now, else when. Those who wait have their places in this order.
    pub(super) fn take(&mut self, paces: &Paces, bytes: usize, now: Instant) -> Option<Instant> {
        let messages = paces.messages.and_then(|pace| self.messages.take(pace, 1, now));
        let bytes = paces.bytes.and_then(|pace| self.bytes.take(pace, bytes, now));
        messages.max(bytes)
    }

    pub(super) fn is_idle(&self, now: Instant) -> bool {
        [&self.messages, &self.bytes].into_iter().all(|meter| meter.0.is_none_or(|paid| paid <= now))
    }
}

impl Meter {
    fn take(&mut self, pace: Pace, amount: usize, now: Instant) -> Option<Instant> {
        let from = self.0.map_or(now, |paid| paid.max(now));
        let cost = time(amount as f64 / pace.per_second);
        self.0 = Some(from.checked_add(cost).unwrap_or(from));
        // One that is more than may come at once waits until everything else is paid for.
        let at = (from + cost.min(pace.at_once)).checked_sub(pace.at_once)?;
        (at > now).then_some(at)
    }
}

#[cfg(test)]
mod tests;
