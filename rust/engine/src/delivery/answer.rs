//! A query for introspection as a subscription of one result: it is made in a thread, one at a time, with accounts taking turns; and for
//! each reader when the one before it was taken, so that one waits for a reader who does not read.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::dispatcher::Dispatcher;
use super::mailbox::{Body, End, Mailbox};
use super::turns::Purpose;
use crate::accounts::Accounts;
use crate::bus::BoxFuture;
use crate::error::{Rejection, code};
use crate::graphql::{Answer, Introspection};

/// An answer on its way.
pub(crate) struct Answering {
    pub(crate) introspection: Introspection,
    /// What is known of it, by others who asked the same.
    pub(crate) answer: Arc<Answer>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) accounts: Accounts,
    pub(crate) dispatcher: Arc<Dispatcher>,
}

impl Answering {
    /// Takes it as far as it gets without waiting; what is left goes on by itself, until the mailbox is closed.
    pub(crate) fn start(self) {
        let runtime = self.dispatcher.runtime.clone();
        let _runtime = runtime.enter();
        let mut journey: BoxFuture<'static, ()> = Box::pin(self.run());
        if journey.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending {
            runtime.spawn(journey);
        }
    }

    async fn run(self) {
        let Answering { introspection, answer, mailbox, accounts, dispatcher } = self;
        let make = || async {
            let turn = dispatcher.answering.wait(Purpose::Loop, &accounts).await;
            let made = tokio::task::spawn_blocking(move || {
                // Held until it is made, whoever has gone meanwhile.
                let _turn = turn;
                introspection.answer().map(Arc::from)
            });
            made.await.unwrap_or_else(|error| Err(Rejection::request(code::INTERNAL_SERVER_ERROR, error.to_string())))
        };
        let answered = async {
            // It is never closed.
            let unsent = mailbox.outbox().answers.acquire().await.ok();
            (unsent, answer.get_or_init(make).await)
        };
        let (_unsent, made) = tokio::select! {
            biased;
            () = mailbox.over() => return,
            answered = answered => answered,
        };
        let end = match made {
            Ok(json) => {
                mailbox.room(1).await;
                let made = dispatcher.shared.metrics.clock.now();
                let body = Body::new(json.to_string(), None, made).weighed(&dispatcher.shared.weights);
                mailbox.push_paced(Arc::new(body));
                End::Complete
            }
            Err(rejection) => {
                rejection.errors().first().map_or(End::Complete, |error| End::Error(error.clone().into()))
            }
        };
        mailbox.end(end);
        mailbox.closed().await;
    }
}
