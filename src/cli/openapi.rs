//! `darkroom openapi`: the API's description, without asking a service.

use super::api::Target;
use super::error::CliError;
use super::output;
use crate::app::document;

/// Which description.
#[derive(clap::Args)]
pub(super) struct Args {
    /// What is told rather than asked for, callbacks and events, as AsyncAPI describes it
    #[arg(long = "async")]
    is_async: bool,
}

/// Prints what a service at the target's URL serves.
pub(super) fn run(args: &Args, target: &Target) -> Result<(), CliError> {
    let url = target.url()?;
    let base = url.as_str().trim_end_matches('/');
    let document = if args.is_async { document::asyncapi(base) } else { document::openapi(base) };
    output::json(&format!("{document:#}"))
}
