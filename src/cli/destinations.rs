//! `darkroom destinations`: whether receivers are well, and what is held back for them.

use clap::Subcommand;
use serde::Deserialize;

use super::api::{Api, Reply, Target};
use super::error::CliError;
use super::model::Links;
use super::output;
use super::pages::{self, Paging};
use super::table::columns;

/// What to look at.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print what the service sends
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List destinations: where callbacks go, and whether they are well
    List(Paging),
    /// Show a destination
    Get(Id),
    /// Send nothing more to it until it is resumed; what is due waits
    Pause(Id),
    /// Send to it again, whether it was paused, suspended or left alone for failing
    Resume(Id),
}

#[derive(clap::Args)]
struct Id {
    /// The destination's id
    id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Destination {
    id: String,
    origin: String,
    state: String,
    waiting: u64,
    waiting_has_more: bool,
    in_flight: u64,
    in_flight_limit: u64,
    failures: u64,
    failing_since: Option<String>,
    open_until: Option<String>,
    held_since: Option<String>,
    last_success_at: Option<String>,
    #[serde(rename = "_links")]
    links: Links,
}

pub(super) async fn run(args: Args, target: &Target) -> Result<(), CliError> {
    let api = Api::new(target)?;
    let (id, rel) = match args.command {
        Command::List(paging) => return list(&api, &paging, args.json).await,
        Command::Get(Id { id }) => (id, None),
        Command::Pause(Id { id }) => (id, Some("pause")),
        Command::Resume(Id { id }) => (id, Some("resume")),
    };
    let href = api.root().await?.expand("destination", "id", &id)?;
    let found: Reply<Destination> = api.get(&href).await?;
    let shown = match rel.map(|rel| (rel, found.body.links.find(rel))) {
        None => found,
        Some((_, Some(href))) => api.post(href).await?,
        Some((action, None)) => {
            return Err(CliError::NotNow { id, action, state: found.body.state });
        }
    };
    if args.json { output::json(&shown.text) } else { output::text(&details(&shown.body)) }
}

async fn list(api: &Api, paging: &Paging, json: bool) -> Result<(), CliError> {
    let url = paging.apply(api.resolve(api.root().await?.href("destinations")?)?);
    let found: Vec<Destination> = pages::read(api, url.into(), paging.all, json).await?;
    if json {
        return Ok(());
    }
    if found.is_empty() {
        output::note("no destinations");
        return Ok(());
    }
    let head = ["ID", "STATE", "WAITING", "IN FLIGHT", "FAILURES", "ORIGIN"].map(str::to_owned);
    let rows = found.iter().map(|one| {
        let flight = format!("{} of {}", one.in_flight, one.in_flight_limit);
        [
            one.id.clone(),
            one.state.clone(),
            waiting(one),
            flight,
            one.failures.to_string(),
            one.origin.clone(),
        ]
    });
    output::text(&columns(&[head].into_iter().chain(rows).collect::<Vec<_>>()))
}

fn waiting(one: &Destination) -> String {
    format!("{}{}", one.waiting, if one.waiting_has_more { "+" } else { "" })
}

fn details(one: &Destination) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    columns(
        &[
            ("destination", one.id.clone()),
            ("origin", one.origin.clone()),
            ("state", one.state.clone()),
            ("waiting", waiting(one)),
            ("in flight", format!("{} of {}", one.in_flight, one.in_flight_limit)),
            ("failures", one.failures.to_string()),
            ("failing since", text(&one.failing_since)),
            ("left alone until", text(&one.open_until)),
            ("held since", text(&one.held_since)),
            ("last success", text(&one.last_success_at)),
        ]
        .map(|(name, value)| [name.to_owned(), value]),
    )
}
