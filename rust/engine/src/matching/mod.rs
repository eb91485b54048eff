//! Who may hear of an event. In comes what one subscription asks, bound to its arguments and its viewer (a [`Condition`]), and then event
//! after event; out go the groups whose condition an event fulfils, at the cost of what is found. Channel names stand here too: they
//! are the first thing that is matched; which events declarations name at all is known beside them.
//!
//! It uses predicates, and asks security about sources and rows. It knows no schema, no queue and no function.

mod channel;
mod condition;
mod declared;
mod describe;
mod index;

pub use channel::{ChannelTemplate, channel_name};
pub(crate) use channel::{Placeholder, name_problem};
pub use condition::{Condition, Verdict};
pub use declared::{Declared, DeclaredChannel, Named};
pub use index::{Index, Withheld};
