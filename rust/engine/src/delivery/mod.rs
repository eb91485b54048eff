//! Who hears of an event, and how it reaches them. In come events, as the bus hands them over, and subscriptions that were admitted; out go
//! results, in the mailboxes of those who read. On the way: channels and their tenants' topics, groups with one condition, classes that
//! share a call, mailboxes that are bounded; and the past, for those who catch up, who share its judging.
//!
//! It uses matching, the plans and projections of graphql, admissions, buses, rates and metrics. It knows neither connections nor
//! protocols: a reader is whoever takes from an outbox.
//!
//! One circle of files: a group offers an event to its resolve classes; a class makes calls, which return to it; what they gave is read for its
//! plans, and each result comes back to the class, which delivers it to the groups that heard.

mod answer;
mod catch_up;
mod class;
mod dispatcher;
mod group;
mod judging;
mod mailbox;
mod past;
mod reading;
mod resolver;
mod shelf;
mod subscription;
mod topics;
mod turns;

pub(crate) use answer::Answering;
pub(crate) use catch_up::Arriving;
pub use catch_up::Settled;
pub use class::ClassKey;
pub(crate) use dispatcher::Dispatcher;
pub use mailbox::{Body, Capacity, End, Mailbox, Notify, Outbox, Taken};
pub use reading::{Part, Parts, Reading, Resume, Returned};
pub(crate) use resolver::Shared;
pub use resolver::{Call, Generation, Outcome, Resolver, Watcher};
pub use subscription::Subscription;
pub(crate) use subscription::Ticket;
pub(crate) use topics::NOBODY_LISTENS;
pub use turns::Turn;
