//! `darkroom replays`: many deliveries sent again.

use std::time::Duration;

use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::{Api, Reply, Target};
use super::deliveries::{self, Delivery, Filter};
use super::error::CliError;
use super::model::Links;
use super::output;
use super::pages::{self, Paging};
use super::table::columns;

/// How often a replay is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  darkroom replays start --dry-run                              how many were given up, and the first of them
  darkroom replays start --destination https://hooks.example --rate 20 --wait
  darkroom replays start --since 2026-11-20T00:00:00Z --status-code 503 --idempotency-key incident-42
  darkroom replays pause rpl_0193f1c2a4b57d3e8f60718293a4b5c6
  darkroom replays items rpl_0193f1c2a4b57d3e8f60718293a4b5c6 --all

A replay outlives the service's restarts and sends nothing again that has arrived, unless it is forced to.";

/// What to do.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print what the service sends
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Send again every delivery that fits; those that were given up unless --state says otherwise
    Start(Box<Start>),
    /// List replays, the latest first
    List(Paging),
    /// Show a replay
    Get(Id),
    /// Show what became of each delivery of a replay
    Items {
        /// The replay's id
        id: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Take up no more until it is resumed
    Pause(Id),
    /// Go on
    Resume(Id),
    /// Take up no more; what was sent again goes on
    Cancel(Id),
}

#[derive(clap::Args)]
struct Id {
    /// The replay's id
    id: String,
}

#[derive(clap::Args)]
struct Start {
    /// Only those at this state
    #[arg(long, default_value = "exhausted", value_parser = ["exhausted", "pending", "cancelled", "delivered", "undelivered"])]
    state: String,
    #[command(flatten)]
    filter: Filter,
    /// How many a second, at most
    #[arg(long, value_name = "N", default_value_t = 50)]
    rate: u32,
    /// Also those that have arrived
    #[arg(long)]
    force: bool,
    /// Only say how many fit, and show the first of them
    #[arg(long)]
    dry_run: bool,
    /// Starting once more with the same key finds the first replay
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait until it has ended
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Replay {
    id: String,
    state: String,
    created_at: String,
    finished_at: Option<String>,
    rate_per_second: u64,
    matched: u64,
    matched_has_more: bool,
    taken: u64,
    done: u64,
    delivered: u64,
    failed: u64,
    skipped: u64,
    #[serde(rename = "_links")]
    links: Links,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DryRun {
    matched: u64,
    matched_has_more: bool,
    sample: Vec<Delivery>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Item {
    number: u64,
    delivery_id: String,
    was: String,
    result: String,
}

pub(super) async fn run(args: Args, target: &Target) -> Result<(), CliError> {
    let (api, json) = (Api::new(target)?, args.json);
    match args.command {
        Command::Start(start) => self::start(&api, &start, json).await,
        Command::List(paging) => list(&api, &paging, json).await,
        Command::Get(Id { id }) => show(&find(&api, &id).await?, json),
        Command::Items { id, paging } => {
            let replay = find(&api, &id).await?;
            let url = paging.apply(api.resolve(replay.body.links.href("items")?)?);
            let items: Vec<Item> = pages::read(&api, url.into(), paging.all, json).await?;
            if json { Ok(()) } else { output::text(&items_table(&items)) }
        }
        Command::Pause(Id { id }) => act(&api, &id, "pause", json).await,
        Command::Resume(Id { id }) => act(&api, &id, "resume", json).await,
        Command::Cancel(Id { id }) => act(&api, &id, "cancel", json).await,
    }
}

async fn start(api: &Api, start: &Start, json: bool) -> Result<(), CliError> {
    let mut filter: Map<String, Value> =
        start.filter.pairs().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    if let Some(code) = start.filter.status_code {
        filter.insert("status_code".to_owned(), code.into());
    }
    filter.insert("state".to_owned(), start.state.clone().into());
    let mut body = json!({
        "filter": filter,
        "rate_per_second": start.rate,
        "force": start.force,
        "dry_run": start.dry_run,
    });
    if let Some(key) = &start.idempotency_key {
        body["idempotency_key"] = key.clone().into();
    }
    let href = api.root().await?.href("start_replay")?.to_owned();
    if start.dry_run {
        let found: Reply<DryRun> = api.post_json(&href, &body).await?;
        if json {
            return output::json(&found.text);
        }
        let DryRun { matched, matched_has_more, sample } = found.body;
        let more = if matched_has_more { " or more" } else { "" };
        output::text(&format!("{matched}{more} would be sent again"))?;
        return if sample.is_empty() { Ok(()) } else { output::text(&deliveries::table(&sample)) };
    }
    let mut replay: Reply<Replay> = api.post_json(&href, &body).await?;
    let own = replay.body.links.href("self")?.to_owned();
    while start.wait && replay.body.state == "running" {
        if !json {
            output::note(&progress(&replay.body));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        replay = api.get(&own).await?;
    }
    show(&replay, json)
}

async fn list(api: &Api, paging: &Paging, json: bool) -> Result<(), CliError> {
    let url = paging.apply(api.resolve(api.root().await?.href("replays")?)?);
    let found: Vec<Replay> = pages::read(api, url.into(), paging.all, json).await?;
    if json {
        return Ok(());
    }
    if found.is_empty() {
        output::note("no replays");
        return Ok(());
    }
    let head = ["ID", "STATE", "STARTED", "PROGRESS"].map(str::to_owned);
    let rows =
        found.iter().map(|one| [one.id.clone(), one.state.clone(), one.created_at.clone(), progress(one)]);
    output::text(&columns(&[head].into_iter().chain(rows).collect::<Vec<_>>()))
}

async fn find(api: &Api, id: &str) -> Result<Reply<Replay>, CliError> {
    let href = api.root().await?.expand("replay", "id", id)?;
    api.get(&href).await
}

async fn act(api: &Api, id: &str, rel: &'static str, json: bool) -> Result<(), CliError> {
    let found = find(api, id).await?;
    let Some(href) = found.body.links.find(rel) else {
        return Err(CliError::NotNow { id: id.to_owned(), action: rel, state: found.body.state });
    };
    show(&api.post(href).await?, json)
}

fn show(replay: &Reply<Replay>, json: bool) -> Result<(), CliError> {
    if json {
        return output::json(&replay.text);
    }
    let one = &replay.body;
    output::text(&columns(
        &[
            ("replay", one.id.clone()),
            ("state", one.state.clone()),
            ("progress", progress(one)),
            ("rate", format!("{} a second", one.rate_per_second)),
            ("started", one.created_at.clone()),
            ("ended", one.finished_at.clone().unwrap_or_else(|| "-".to_owned())),
        ]
        .map(|(name, value)| [name.to_owned(), value]),
    ))
}

fn progress(one: &Replay) -> String {
    let more = if one.matched_has_more { "+" } else { "" };
    format!(
        "{} of {}{more} taken up, {} ended: {} delivered, {} failed, {} skipped",
        one.taken, one.matched, one.done, one.delivered, one.failed, one.skipped
    )
}

fn items_table(items: &[Item]) -> String {
    let head = ["#", "DELIVERY", "WAS", "RESULT"].map(str::to_owned);
    let rows = items
        .iter()
        .map(|one| [one.number.to_string(), one.delivery_id.clone(), one.was.clone(), one.result.clone()]);
    columns(&[head].into_iter().chain(rows).collect::<Vec<_>>())
}
