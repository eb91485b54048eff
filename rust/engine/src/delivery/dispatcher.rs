//! What delivering needs in one run: the channels that somebody listens to, the past, and what all who share calls have in common.

use std::sync::Arc;

use super::resolver::Shared;
use super::shelf::Shelf;
use super::topics::{Channel, Channels};
use super::turns::Turns;
use crate::bus::EventBus;
use crate::error::Module;
use crate::event::Event;

/// Brings events to those who hear of them.
pub(crate) struct Dispatcher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) channels: Channels,
    /// What is read of the past, for all channels.
    pub(crate) shelf: Arc<Shelf>,
    /// Who may have an answer to introspection made.
    pub(super) answering: Arc<Turns>,
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) runtime: tokio::runtime::Handle,
}

impl Dispatcher {
    /// Nobody listens yet.
    pub(crate) fn new(bus: Arc<dyn EventBus>, shared: Shared, runtime: tokio::runtime::Handle) -> Arc<Dispatcher> {
        let (channels, shelf) = (Channels::new(bus.clone()), Shelf::new(bus.clone()));
        let mut one_call = shared.limits.clone();
        one_call.max_calls = 1;
        let answering = Turns::new(&one_call);
        Arc::new(Dispatcher { shared: Arc::new(shared), channels, shelf, answering, bus, runtime })
    }

    /// Hands an event to those who listen to its channel, and counts and tells what kept it from others.
    pub(crate) fn receive(&self, channel: &Channel, event: &Arc<Event>) {
        let withheld = channel.receive(event, &self.shared);
        self.shared.metrics.filtered(Module::Sources, withheld.sources);
        self.shared.metrics.filtered(Module::Rows, withheld.rows);
        self.shared.told.ill_typed(&withheld.ill_typed);
    }

    /// Tells those who listen to a channel that the bus may have lost events of it.
    pub(crate) fn gap(&self, channel: &str) {
        if let Some(channel) = self.channels.find(channel) {
            channel.gap();
        }
    }
}
