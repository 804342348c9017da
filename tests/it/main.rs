//! Darkroom from outside: one binary, one file a subject. Each test starts what production starts, on
//! port 0 and a folder of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a test that meets the unexpected fails on the spot, and nothing here is anyone's interface"
)]

mod abuse;
mod access;
mod access_log;
mod backup;
mod bad_input;
mod bounds;
mod bulk;
mod callback_fields;
mod callbacks;
mod cli;
mod clients_cli;
mod conditional;
mod connections;
mod cors;
mod deliveries;
#[cfg(target_os = "linux")]
mod disk_full;
mod document;
mod egress;
mod events;
mod fuzz;
mod handshake;
mod idempotency;
#[cfg(target_os = "linux")]
mod imaging;
mod jobs;
mod killed;
mod lifecycle;
mod links;
mod listen;
mod manners;
mod operating;
mod pictures;
mod problems;
mod queue;
mod quotas;
mod replays;
mod restart;
mod secrets;
mod server;
mod signature;
mod signed;
mod source;
mod support;
mod tls;
mod variants;
mod verifiers;
mod watermarks;
mod workers;
