//! What is kept of the past of all channels: how much it weighs, and how many read at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Semaphore;

use crate::bus::EventBus;

/// Bytes that the events of all channels may weigh, with what was found and made of them.
pub(super) const SHELF_BYTES: usize = 16 << 20;
/// Readers that are given something at the same time: what waits for them all is bounded by it.
const AT_ONCE: usize = 32;

/// What the pasts of all channels share.
pub(crate) struct Shelf {
    pub(super) bus: Arc<dyn EventBus>,
    bytes: AtomicUsize,
    /// Turns of readers.
    pub(crate) turns: Semaphore,
}

impl Shelf {
    pub(crate) fn new(bus: Arc<dyn EventBus>) -> Arc<Shelf> {
        Arc::new(Shelf { bus, bytes: AtomicUsize::new(0), turns: Semaphore::new(AT_ONCE) })
    }

    pub(super) fn weigh(self: &Arc<Self>, bytes: usize) -> Weight {
        self.bytes.fetch_add(bytes, SeqCst);
        Weight { shelf: self.clone(), bytes }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes() > SHELF_BYTES
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(SeqCst)
    }
}

/// Something that is kept; dropped with it.
pub(super) struct Weight {
    shelf: Arc<Shelf>,
    bytes: usize,
}

impl Weight {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// More is kept.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.shelf.bytes.fetch_add(bytes, SeqCst);
    }

    pub(super) fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.shelf.bytes.fetch_sub(self.bytes, SeqCst);
    }
}
