//! Work under way: counted by guards, and waited for when the engine drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Notify;

/// A count of work under way.
#[derive(Default)]
pub struct Tasks {
    under_way: AtomicUsize,
    idle: Notify,
}

/// One piece of work; dropping it says that it is done.
pub struct UnderWay(Arc<Tasks>);

impl Tasks {
    /// Begins a piece of work.
    pub fn start(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, SeqCst);
        UnderWay(self.clone())
    }

    /// Resolves when nothing is under way.
    pub async fn idle(&self) {
        loop {
            let woken = self.idle.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.under_way.load(SeqCst) == 0 {
                return;
            }
            woken.await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}
