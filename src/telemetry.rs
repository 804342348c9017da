//! The log: structured, on standard error, one line for each thing that was decided.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// `log.filter` is not one.
    #[error("log.filter is not a valid filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// It was set up before.
    #[error("the log is set up already")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up the process's log.
pub fn init(log: &Log) -> Result<(), InitError> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would say on standard error, too, that nothing can be written there, and panic.
        .log_internal_errors(false);
    match log.format {
        LogFormat::Json => builder.json().finish().try_init()?,
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?,
    }
    Ok(())
}
