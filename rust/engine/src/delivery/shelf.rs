//! What is kept of the past of all channels: how much it weighs, what goes where it is too much, and how many read at the same time.
//!
//! Only what can be dropped counts as kept. What readers hold while they use it is bounded apart: by their turns, by the bytes of one
//! account, and by those of all panels. So nobody fills the shelf by standing still.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use foldhash::HashMap;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::accounts::Account;
use crate::bus::EventBus;

/// Bytes that the events of all channels may weigh, with what was found and made of them.
pub(super) const SHELF_BYTES: usize = 16 << 20;
/// Readers that are given something at the same time: what waits for them all is bounded by it.
const AT_ONCE: usize = 32;
/// Bytes of events that the readers of one account hold while functions are called for them.
pub(super) const PINNED: usize = 4 << 20;
/// Bytes of the panels of all channels.
const PANEL_BYTES: usize = 16 << 20;

/// What the pasts of all channels share.
pub(crate) struct Shelf {
    pub(super) bus: Arc<dyn EventBus>,
    bytes: AtomicUsize,
    /// Those of whom something may be kept.
    shelved: Mutex<Vec<Weak<dyn Shelved>>>,
    /// Counts the times that something was looked at.
    looks: AtomicU64,
    /// Turns of readers.
    pub(crate) turns: Semaphore,
    /// Bytes that an account's readers may still hold, by account.
    pins: Mutex<HashMap<Option<Arc<Account>>, Weak<Semaphore>>>,
    pub(super) panels: Arc<Semaphore>,
}

/// Something of which the shelf keeps a part.
pub(super) trait Shelved: Send + Sync {
    /// The number of the last look at it.
    fn looked_at(&self) -> u64;
    /// Nothing of it is kept any more.
    fn let_go(&self);
}

impl Shelf {
    pub(crate) fn new(bus: Arc<dyn EventBus>) -> Arc<Shelf> {
        Arc::new(Shelf {
            bus,
            bytes: AtomicUsize::new(0),
            shelved: Mutex::default(),
            looks: AtomicU64::new(0),
            turns: Semaphore::new(AT_ONCE),
            pins: Mutex::default(),
            panels: Arc::new(Semaphore::new(PANEL_BYTES)),
        })
    }

    /// What this account's readers share.
    pub(super) fn pins(&self, account: Option<Arc<Account>>) -> Arc<Semaphore> {
        let mut pins = self.pins.lock();
        if let Some(known) = pins.get(&account).and_then(Weak::upgrade) {
            return known;
        }
        if pins.len() == pins.capacity() {
            pins.retain(|_, pins| pins.strong_count() > 0);
        }
        let made = Arc::new(Semaphore::new(PINNED));
        pins.insert(account, Arc::downgrade(&made));
        made
    }

    /// Something of this may be kept from now on.
    pub(super) fn add(&self, shelved: Weak<dyn Shelved>) {
        let mut all = self.shelved.lock();
        if all.len() == all.capacity() {
            all.retain(|shelved| shelved.strong_count() > 0);
        }
        all.push(shelved);
    }

    /// The number of one more look.
    pub(super) fn look(&self) -> u64 {
        self.looks.fetch_add(1, SeqCst)
    }

    /// Where too much is kept, what nobody has looked at for longest goes. To be called without locks.
    pub(super) fn make_room(&self) {
        if !self.is_full() {
            return;
        }
        let mut all: Vec<_> = self.shelved.lock().iter().filter_map(Weak::upgrade).collect();
        all.sort_by_key(|shelved| shelved.looked_at());
        for shelved in all {
            // Somewhat more goes than has to: to sort them each time would be dear.
            if self.bytes() <= SHELF_BYTES / 4 * 3 {
                return;
            }
            shelved.let_go();
        }
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
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// More is kept.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.shelf.bytes.fetch_add(bytes, SeqCst);
    }

    /// Whether too much is kept already.
    pub(super) fn is_full(&self) -> bool {
        self.shelf.is_full()
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.shelf.bytes.fetch_sub(self.bytes, SeqCst);
    }
}
