//! What Darkroom is about, as plain values: no I/O, no clock, no chance.
//!
//! `now` and random bytes are passed in. The types derive serde for the store's versioned
//! records only; what clients see has types of its own in [`crate::service::view`].

pub mod api_key;
pub mod attempt;
pub mod audit;
pub mod client;
pub mod delivery;
pub mod destination;
pub mod dispatch;
pub mod event;
pub mod hex;
pub mod id;
pub mod image;
pub mod job;
pub mod replay;
pub mod retry;
pub mod rotation;
pub mod secret;
pub mod trace;
