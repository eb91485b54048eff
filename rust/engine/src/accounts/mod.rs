//! What goes by account: how many at once and how many a second (`quota`), and whose authority has ended (`revocation`). In come viewers
//! and revocations; out go shares that are given back when they are dropped, and those whom a revocation names.
//!
//! It uses viewers, limits and the clock. It knows neither connections nor subscriptions: who can be revoked says so by a trait.

mod quota;
mod revocation;

pub use quota::{Account, Accounts, EventRate, Quotas, Rate, Reached, Seat, Shares, Tallies};
pub use revocation::{Authorisation, Registered, Registry, Revocable, Revocation, Revocations};
