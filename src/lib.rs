//! Darkroom: an asynchronous image-job service.
//!
//! A picture comes in over HTTP with a callback URL, and `202 Accepted` goes out at once. Workers make
//! the artifacts; a signed callback, retried until it has arrived or is known to have failed, says so.
//!
//! The rooms, from the door to the foundation; an arrow is an import, and there are no others
//! (`tests/tidy.rs` holds them):
//!
//! ```text
//! main ─► cli ─► app ─► http ───┐
//!                  ├──► worker ─┤─► service ─► store · blobs · imaging · notify ─► domain
//!                  └──► (wires everything; owns start-up and drain order)
//! leaves that anyone may use: config (values only), clock, telemetry
//! ```
//!
//! `ARCHITECTURE.md` walks one upload through them.

pub mod app;
pub mod blobs;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod http;
pub mod imaging;
pub mod notify;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod worker;
