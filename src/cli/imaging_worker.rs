//! `darkroom imaging-worker`: the inside of an imaging process, which `serve` starts.

use super::error::CliError;
use crate::app::imaging;

/// What it may use.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Bytes of memory
    #[arg(long)]
    memory: u64,
    /// Seconds of processor time
    #[arg(long)]
    cpu_seconds: u64,
}

/// Without a runtime: one thread, which walls itself in.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    imaging::work(args.memory, args.cpu_seconds)
        .map_err(|source| CliError::io("the service does not answer any more", source))
}
