//! `darkroom destinations`: whether receivers are well, and what is held back for them.

use clap::Subcommand;
use serde::Deserialize;

use super::api::{Api, Reply, Target};
use super::error::CliError;
use super::model::Links;
use super::output;
use super::pages::{self, Paging};
use super::table::{pairs, table};

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
        Command::List(paging) => {
            let destinations = api.resolve(api.root().await?.href("destinations")?)?;
            return pages::print(&api, destinations, &paging, args.json, "destinations", list).await;
        }
        Command::Get(Id { id }) => (id, None),
        Command::Pause(Id { id }) => (id, Some("pause")),
        Command::Resume(Id { id }) => (id, Some("resume")),
    };
    let found: Reply<Destination> = api.find("destination", &id).await?;
    let shown = match rel {
        None => found,
        Some(rel) => api.post(found.body.links.action(rel, &id, &found.body.state)?).await?,
    };
    if args.json { output::json(&shown.text) } else { output::text(&details(&shown.body)) }
}

fn list(found: &[Destination]) -> String {
    let rows = found.iter().map(|one| {
        [
            one.id.clone(),
            one.state.clone(),
            waiting(one),
            flight(one),
            one.failures.to_string(),
            one.origin.clone(),
        ]
    });
    table(["ID", "STATE", "WAITING", "IN FLIGHT", "FAILURES", "ORIGIN"], rows)
}

fn flight(one: &Destination) -> String {
    format!("{} of {}", one.in_flight, one.in_flight_limit)
}

fn waiting(one: &Destination) -> String {
    format!("{}{}", one.waiting, if one.waiting_has_more { "+" } else { "" })
}

fn details(one: &Destination) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    pairs([
        ("destination", one.id.clone()),
        ("origin", one.origin.clone()),
        ("state", one.state.clone()),
        ("waiting", waiting(one)),
        ("in flight", flight(one)),
        ("failures", one.failures.to_string()),
        ("failing since", text(&one.failing_since)),
        ("left alone until", text(&one.open_until)),
        ("held since", text(&one.held_since)),
        ("last success", text(&one.last_success_at)),
    ])
}
