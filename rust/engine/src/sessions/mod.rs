//! Who reads: connections with their protocol, streams of this process, and the register of all of them ([`Sessions`]), which drains,
//! stops and revokes. In come frames, answers of auth handlers, and time; out go frames, messages and closes.
//!
//! It owns an engine and uses what stands below it. It knows no socket and no HTTP: transports hand in and take out.
//!
//! One circle of files: the register holds connections and streams, and each of them enters and leaves it by itself.

mod connection;
pub mod protocol;
mod register;
mod stream;

pub use connection::{Answer, Connection, Held, Offer, Outgoing, Question};
pub use register::Sessions;
pub use stream::{Ask, Delivery, Framing, OpenError, Stream};
