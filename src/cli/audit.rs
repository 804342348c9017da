//! `darkroom audit`: what operators did.

use serde::Deserialize;

use super::api::{Api, Target};
use super::error::CliError;
use super::pages::{self, Paging};
use super::table::table;

/// How much of it.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    paging: Paging,
    /// Print what the service sends
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    at: String,
    client: String,
    action: String,
    target: String,
    request_id: String,
    status: Option<u16>,
}

pub(super) async fn run(args: Args, target: &Target) -> Result<(), CliError> {
    let api = Api::new(target)?;
    let list = api.resolve(api.root().await?.href("audit")?)?;
    pages::print(&api, list, &args.paging, args.json, "entries", |entries: &[Entry]| {
        let rows = entries.iter().map(|entry| {
            let method = entry.action.split(' ').next().unwrap_or_default();
            let status = entry.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
            let what = format!("{method} {}", entry.target);
            [entry.at.clone(), entry.client.clone(), what, status, entry.request_id.clone()]
        });
        table(["AT", "CLIENT", "ACTION", "STATUS", "REQUEST"], rows)
    })
    .await
}
