//! Callbacks: what is signed, where it may go, and one attempt to send it.
//!
//! When to send, how often and to whom is decided elsewhere; nothing here keeps state between two attempts.

pub mod ed25519;
pub mod explain;
pub mod guard;
pub mod sender;
pub mod signature;
