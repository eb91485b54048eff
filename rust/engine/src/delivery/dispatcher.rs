//! What delivering needs in one run: the channels that somebody listens to, the past, and what all who share calls have in common.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::past::Shelf;
use super::resolver::{Resolver, Shared};
use super::topics::{Channel, Channels};
use super::turns::Turns;
use crate::bus::EventBus;
use crate::error::Module;
use crate::event::Event;
use crate::limits::Limits;
use crate::operators::Metrics;
use crate::timers::Timers;

/// Brings events to those who hear of them.
pub(crate) struct Dispatcher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) channels: Channels,
    /// What is read of the past, for all channels.
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) runtime: tokio::runtime::Handle,
}

impl Dispatcher {
    /// Nobody listens yet. `limits_events`: whether anybody's events are limited.
    pub(crate) fn new(
        bus: Arc<dyn EventBus>,
        resolver: Arc<dyn Resolver>,
        limits: Limits,
        limits_events: bool,
        metrics: Arc<Metrics>,
        timers: Arc<Timers>,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Dispatcher> {
        let (calls, abandon_keys) = (Arc::default(), AtomicU64::default());
        let turns = Turns::new(&limits);
        let shared = Shared { resolver, limits, limits_events, metrics, calls, turns, timers, abandon_keys };
        let (channels, shelf) = (Channels::new(bus.clone()), Shelf::new(bus.clone()));
        Arc::new(Dispatcher { shared: Arc::new(shared), channels, shelf, bus, runtime })
    }

    /// Hands an event to those who listen to its channel, and counts from whom it was withheld.
    pub(crate) fn receive(&self, channel: &Channel, event: &Arc<Event>) {
        let withheld = channel.receive(event, &self.shared);
        self.shared.metrics.filtered(Module::Sources, withheld.sources);
        self.shared.metrics.filtered(Module::Rows, withheld.rows);
    }

    /// Tells those who listen to a channel that the bus may have lost events of it.
    pub(crate) fn gap(&self, channel: &str) {
        if let Some(channel) = self.channels.find(channel) {
            channel.gap();
        }
    }
}
