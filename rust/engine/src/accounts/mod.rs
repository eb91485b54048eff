//! What goes by account: how many at once and how many a second (`quota`), how fast it sends (`inflow`), what memory it takes (`weights`),
//! and whose authority has ended (`revocation`). In come viewers and revocations; out go guards that give back what they hold when they are
//! dropped, and those whom a revocation names.
//!
//! It uses viewers, limits and the clock. It knows neither connections nor subscriptions: who can be revoked says so by a trait.

mod inflow;
mod quota;
mod revocation;
mod weights;

pub use quota::{Account, Accounts, EventRate, Quotas, Rate, Reached, Seat, Shares, Tallies};
pub use revocation::{Authorisation, Registered, Registry, Revocable, Revocation, Revocations};
pub use weights::{AccountLoad, ConnectionLoad, KINDS, Kept, Kind, Weight, Weights};
