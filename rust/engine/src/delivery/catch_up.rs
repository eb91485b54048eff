//! From the request to the index: a subscription that is not live at once waits for the bus, and one that resumes first reads what it
//! missed, at its reader's pace, then it goes live without a seam.
//!
//! The reader decides the speed: one event is judged and resolved when the mailbox has room. Readers take turns, so that thousands who
//! catch up at once neither fill the memory nor keep those waiting who are live; who waits for room keeps a position, and nothing of the
//! past. The seam is the channel's lock: a subscription joins the index only when it has read everything up to the channel's last event.
//! One that ends stops where it is, and the function that is called for it is abandoned.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::class::ClassKey;
use super::dispatcher::Dispatcher;
use super::group::{self, ProjectedResult};
use super::mailbox::{End, Mailbox};
use super::past::{Excerpt, Reader, SharedCall, TAKE};
use super::resolver::{Call, Shared, too_late};
use super::shelf::PINNED;
use super::subscription::{Subscription, Ticket};
use super::turns::{Purpose, Turn};
use crate::accounts::{self, Accounts};
use crate::admission::Admission;
use crate::bus::{BoxFuture, BusError, Watched};
use crate::clock::within;
use crate::error::{GraphQLError, Module, Rejection};
use crate::event::{Event, Offset, Position};
use crate::graphql::{Kind, Operation, Source};
use crate::matching::Withheld;
use crate::operators::Metrics;

/// Results that may wait in the mailbox while the past is read.
const AHEAD: usize = 16;
/// A reader who does not take what he was given within this time is not waited for: others have their turn.
const TURN: Duration = Duration::from_millis(20);

/// A subscription that is not live yet.
pub(crate) struct Arriving {
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) ticket: Ticket,
    pub(crate) watched: Watched,
    /// Where it resumes.
    pub(crate) from: Option<Position>,
}

/// Says when it is live or reads the past, or why it is not; nothing, where it has ended meanwhile.
pub type Settled = oneshot::Receiver<Result<(), Rejection>>;

impl Arriving {
    /// Takes it as far as it gets without waiting. What is left goes on by itself, until the subscription ends; `None`: it has arrived.
    pub(crate) fn start(self) -> Result<Option<Settled>, Rejection> {
        let dispatcher = self.ticket.dispatcher.clone();
        let _runtime = dispatcher.runtime.enter();
        let subscription = self.subscription.clone();
        let (settle, mut settled) = oneshot::channel();
        let mut journey: BoxFuture<'static, ()> = Box::pin(self.run(settle));
        if journey.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending {
            let task = dispatcher.runtime.spawn(journey);
            subscription.set_on_the_way(task.abort_handle());
        }
        match settled.try_recv() {
            Ok(outcome) => outcome.map(|()| None),
            Err(_) => Ok(Some(settled)),
        }
    }

    async fn run(self, settle: oneshot::Sender<Result<(), Rejection>>) {
        let Arriving { subscription, ticket, watched, from } = self;
        let mut settle = Some(settle);
        let past = from.map(|after| (after, ticket.past()));
        let arrives = async {
            let since = since(&ticket.dispatcher, watched).await?;
            match &past {
                None => {
                    subscription.join(&ticket, since, None);
                    Ok(())
                }
                Some((after, past)) => read(&subscription, &ticket, since, *after, past, &mut settle).await,
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = arrives => outcome,
            () = subscription.mailbox.over() => Ok(()),
        };
        let unheard = match settle {
            Some(settle) => settle.send(outcome).err().unwrap_or(Ok(())),
            None => outcome,
        };
        // Where nobody asks any more the reader is told in its place.
        if let Err(rejection) = unheard
            && let [error] = &rejection.errors()[..]
        {
            subscription.mailbox.end(End::Error(Arc::new(error.clone())));
        }
    }
}

/// Since when the channel is handed over, once it is.
async fn since(dispatcher: &Dispatcher, watched: Watched) -> Result<Offset, Rejection> {
    let live = match watched {
        Watched::Now(since) => return Ok(since),
        Watched::Later(live) => live,
    };
    let bus = &dispatcher.bus;
    within(bus.patience(), live).await.ok_or_else(|| {
        let reason = bus.status().last_error.unwrap_or_else(|| "the channel could not be watched in time".to_owned());
        Rejection::BusUnavailable(reason)
    })
}

/// Gives a subscription what came after a position, and makes it live.
async fn read(
    subscription: &Arc<Subscription>,
    ticket: &Ticket,
    since: Offset,
    after: Position,
    past: &Reader,
    settle: &mut Option<oneshot::Sender<Result<(), Rejection>>>,
) -> Result<(), Rejection> {
    let Ticket { admission, dispatcher, .. } = ticket;
    let (mailbox, metrics) = (&subscription.mailbox, &dispatcher.shared.metrics);
    let call = (admission.operation.field.declaration.kind != Kind::Passthrough).then(|| SharedCall {
        class: ClassKey::of(&admission.operation, &admission.viewer).0,
        tenant: admission.viewer.tenant_id.clone(),
    });
    let mut turn = Pace { turns: &dispatcher.shelf.turns, mailbox, permit: None };
    let pins = dispatcher.shelf.pins(ticket.accounts.user.clone());
    let (mut pin, most) = (None, if call.is_some() { 1 } else { TAKE });
    let mut cursor = after;
    if !past.reaches(after) {
        turn.take().await;
        past.reach(after).await?;
    }
    if let Some(settle) = settle.take() {
        // Who asked may have gone; the subscription ends then.
        let _ = settle.send(Ok(()));
    }
    'joining: while !subscription.join(ticket, since, Some(cursor.offset)) {
        // Others come to the same events meanwhile.
        tokio::task::yield_now().await;
        if !mailbox.has_room(AHEAD) {
            pin = None;
        }
        turn.room().await;
        let Excerpt { events, withheld, through } = past.read(cursor, most).await?;
        for (withheld, past) in events {
            if !mailbox.has_room(AHEAD) {
                continue 'joining;
            }
            if call.is_some() {
                // A function may take its time.
                turn.give_up();
                // What is larger than all of it has it alone.
                let (bytes, load) = (past.bytes.min(PINNED), mailbox.outbox().load());
                let charged = |permit| (permit, load.weigh(accounts::Kind::Past, bytes));
                pin = pin.or_else(|| pins.try_acquire_many(bytes as u32).ok().map(charged));
                if pin.is_none() {
                    drop(past);
                    pin = pins.acquire_many(bytes as u32).await.ok().map(charged);
                    continue 'joining;
                }
            }
            let make = || result(ticket, &past.event);
            let Some(result) = past.result(&admission.operation.plan, call.as_ref(), make).await else {
                return Ok(());
            };
            pin = None;
            turn.take().await;
            result.push_paced_to(mailbox, metrics);
            count(metrics, &withheld);
            cursor.offset = past.event.position.offset;
        }
        count(metrics, &withheld);
        cursor.offset = through;
    }
    Ok(())
}

/// What modules have withheld is counted when the reader has gone past it.
fn count(metrics: &Metrics, withheld: &Withheld) {
    metrics.filtered(Module::Sources, withheld.sources);
    metrics.filtered(Module::Rows, withheld.rows);
}

/// A reader's turn: while it has one, little waits for it.
struct Pace<'a> {
    turns: &'a Semaphore,
    mailbox: &'a Mailbox,
    permit: Option<SemaphorePermit<'a>>,
}

impl Pace<'_> {
    async fn take(&mut self) {
        if self.permit.is_none() {
            // They are never closed.
            self.permit = self.turns.acquire().await.ok();
        }
    }

    fn give_up(&mut self) {
        self.permit = None;
    }

    /// Waits for the reader to take what waits; a slow one without keeping others from their turns.
    async fn end(&mut self) {
        let _ = within(TURN, self.mailbox.room(1)).await;
        self.give_up();
    }

    /// Has a turn, and room for one more.
    async fn room(&mut self) {
        if !self.mailbox.has_room(AHEAD) {
            self.end().await;
            self.mailbox.room(1).await;
        }
        self.take().await;
    }
}

/// The result of a past event; `None`: nobody waits for it any more.
async fn result(ticket: &Ticket, event: &Arc<Event>) -> Option<ProjectedResult> {
    let Ticket { admission: Admission { operation, viewer, .. }, dispatcher, accounts, .. } = ticket;
    let shared = &dispatcher.shared;
    let position = Some(event.position);
    if operation.field.declaration.kind == Kind::Passthrough {
        return Some(group::result(&operation.plan, Source::Passthrough(&event.data), position, shared));
    }
    match turn(dispatcher, operation, accounts).await {
        Ok(turn) => {
            let (viewer, accounts) = (viewer.clone(), accounts.clone());
            let (call, pending) = Call::single(operation, event.clone(), viewer, accounts, shared, turn);
            shared.resolver.call(call);
            pending.result().await
        }
        Err(error) => {
            shared.metrics.resolver_errors.inc();
            Some(group::result(&operation.plan, Source::Failed(&error), position, shared))
        }
    }
}

/// Waits for a turn to call a function; for one in a thread not longer than a call may take.
async fn turn(
    dispatcher: &Dispatcher,
    operation: &Operation,
    accounts: &Accounts,
) -> Result<Option<Turn>, GraphQLError> {
    let Shared { turns, limits, metrics, .. } = &*dispatcher.shared;
    let declaration = &operation.field.declaration;
    let turn = turns.wait(Purpose::of(declaration.kind), accounts);
    if declaration.kind != Kind::Sync {
        return Ok(turn.await);
    }
    let patience = declaration.timeout.map_or(limits.resolver_timeout, Duration::from_secs_f64);
    tokio::select! {
        turn = turn => Ok(turn),
        () = metrics.clock.sleep_until(metrics.clock.now() + patience) => Err(too_late()),
    }
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
