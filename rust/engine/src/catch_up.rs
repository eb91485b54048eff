//! Resuming: what a subscription missed is read from the bus's history at the reader's pace, then it goes live without a seam.
//!
//! The reader decides the speed: one event is read, judged and resolved when the mailbox has room. The seam is the channel's lock:
//! a subscription joins the index only when it has read everything up to the channel's last event.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::admission::Admission;
use crate::bus::BusError;
use crate::engine::Engine;
use crate::error::Rejection;
use crate::event::{Event, Position};
use crate::group;
use crate::index::Verdict;
use crate::mailbox::End;
use crate::project::Source;
use crate::resolver::Call;
use crate::schema::Kind;
use crate::security::Module;
use crate::subscription::{Subscription, Ticket};
use crate::topics::Channel;

/// Events that are read at once.
const PAGE: usize = 64;
/// Results that may wait in the mailbox while history is read.
const AHEAD: usize = 16;

/// Begins to read after `offset`. History that is known to be gone is refused at once.
pub(crate) fn start(
    engine: &Arc<Engine>,
    subscription: &Arc<Subscription>,
    ticket: Ticket,
    after: Position,
) -> Result<(), Rejection> {
    let hold = Hold { engine: engine.clone(), channel: ticket.channel.clone() };
    let first = {
        let mut reading = engine.parts.bus.read(&ticket.admission.operation.channel, after, PAGE);
        reading.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    if let Poll::Ready(Err(error)) = first {
        return Err(error.into());
    }
    let subscription_of_task = subscription.clone();
    let task = engine.runtime.spawn(async move {
        let subscription = subscription_of_task;
        if let Err(error) = run(&hold.engine, &subscription, &ticket, after).await {
            let [error] = &Rejection::from(error).errors()[..] else {
                return;
            };
            subscription.mailbox.end(End::Error(Arc::new(error.clone())));
        }
    });
    subscription.set_catching_up(task.abort_handle());
    Ok(())
}

/// Keeps the channel while history is read, however the task ends.
struct Hold {
    engine: Arc<Engine>,
    channel: Arc<Channel>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.engine.channels.release(&self.channel);
    }
}

async fn run(
    engine: &Arc<Engine>,
    subscription: &Arc<Subscription>,
    ticket: &Ticket,
    mut cursor: Position,
) -> Result<(), BusError> {
    let mailbox = &subscription.mailbox;
    loop {
        let page = engine.parts.bus.read(&ticket.admission.operation.channel, cursor, PAGE).await?.events;
        if page.is_empty() && subscription.join(ticket, Some(cursor.offset)) {
            return Ok(());
        }
        for event in page {
            cursor = event.position;
            if is_for(engine, ticket, &event) {
                mailbox.room(AHEAD).await;
                if mailbox.is_over() {
                    return Ok(());
                }
                replay(engine, subscription, ticket, event).await;
            }
        }
    }
}

/// Whether the subscription would have heard of this event, under today's rights.
fn is_for(engine: &Engine, ticket: &Ticket, event: &Event) -> bool {
    let verdict = ticket.admission.judge(event);
    let metrics = &engine.parts.metrics;
    match verdict {
        Verdict::Sources => metrics.filtered(Module::Sources, 1),
        Verdict::Rows => metrics.filtered(Module::Rows, 1),
        _ => {}
    }
    verdict == Verdict::Match
}

async fn replay(engine: &Arc<Engine>, subscription: &Arc<Subscription>, ticket: &Ticket, event: Arc<Event>) {
    let Admission { operation, viewer, .. } = &ticket.admission;
    let shared = &engine.shared;
    let offset = Some(event.position);
    let result = if operation.field.declaration.kind == Kind::Passthrough {
        group::result(&operation.plan, Source::Passthrough(&event.data), offset, shared)
    } else {
        let (call, pending) = Call::single(operation, event, viewer.clone(), shared);
        shared.resolver.call(call);
        let Some(outcome) = pending.outcome().await else { return };
        if outcome.is_err() {
            shared.metrics.resolver_errors.inc();
        }
        let source = match &outcome {
            Ok(value) => Source::Read(value),
            Err(error) => Source::Failed(error),
        };
        group::result(&operation.plan, source, offset, shared)
    };
    result.push_paced_to(&subscription.mailbox, &shared.metrics);
}

impl From<BusError> for Rejection {
    fn from(error: BusError) -> Rejection {
        match error {
            BusError::HistoryLost => Rejection::HistoryLost,
            BusError::Unavailable(reason) | BusError::Unknown(reason) | BusError::Refused(reason) => {
                Rejection::BusUnavailable(reason)
            }
        }
    }
}
