//! Telling the outside what happened to a job.

pub mod webhook;
