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
use super::table::{pairs, table};

/// The state of those that are sent again if nothing else is asked for.
const GIVEN_UP: &str = "exhausted";
/// How often a replay is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  darkroom replays start --dry-run                              how many were given up, and the first of them
  darkroom replays start --destination https://hooks.example --rate 20 --wait
  darkroom replays start --since 2026-11-20T00:00:00Z --status-code 503 --idempotency-key incident-42
  darkroom replays pause rpl_0193f1c2a4b57d3e8f60718293a4b5c6
  darkroom replays items rpl_0193f1c2a4b57d3e8f60718293a4b5c6 --all

A replay outlives the service's restarts and sends nothing again that has arrived, unless it is forced to.
With --json the service's answers are printed to the letter, each on a line of its own: one for each page with --all.";

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
    /// Send again every delivery that fits; those that were given up unless --state says otherwise.
    /// Without a filter it takes --all, or --dry-run
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
    /// Only those at this state [default: exhausted]
    #[arg(long, value_parser = ["exhausted", "pending", "cancelled", "delivered", "undelivered"])]
    state: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// All of them, which is asked for where no filter is given
    #[arg(long)]
    all: bool,
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
    #[serde(default)]
    taken_over: u64,
    no_longer_matching: Option<u64>,
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
        Command::List(paging) => {
            let replays = api.resolve(api.root().await?.href("replays")?)?;
            pages::print(&api, replays, &paging, json, "replays", list).await
        }
        Command::Get(Id { id }) => show(&find(&api, &id).await?, json),
        Command::Items { id, paging } => {
            let items = api.resolve(find(&api, &id).await?.body.links.href("items")?)?;
            pages::print(&api, items, &paging, json, "items", items_table).await
        }
        Command::Pause(Id { id }) => act(&api, &id, "pause", json).await,
        Command::Resume(Id { id }) => act(&api, &id, "resume", json).await,
        Command::Cancel(Id { id }) => act(&api, &id, "cancel", json).await,
    }
}

impl Start {
    /// What the service is asked for. Everything that was ever given up is sent again only where that is said.
    fn body(&self) -> Result<Value, CliError> {
        let pairs = self.filter.pairs();
        if pairs.is_empty() && self.state.is_none() && !self.all && !self.dry_run {
            return Err(CliError::Usage(
                "which deliveries? Give a filter such as --destination or --since, or --all for every one that was \
                 given up; with --dry-run nothing is sent"
                    .to_owned(),
            ));
        }
        let mut filter: Map<String, Value> =
            pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        if let Some(code) = self.filter.status_code {
            filter.insert("status_code".to_owned(), code.into());
        }
        filter.insert("state".to_owned(), self.state.as_deref().unwrap_or(GIVEN_UP).into());
        let mut body = json!({
            "filter": filter,
            "rate_per_second": self.rate,
            "force": self.force,
            "dry_run": self.dry_run,
        });
        if let Some(key) = &self.idempotency_key {
            body["idempotency_key"] = key.clone().into();
        }
        Ok(body)
    }
}

async fn start(api: &Api, start: &Start, json: bool) -> Result<(), CliError> {
    let body = start.body()?;
    let href = api.root().await?.href("start_replay")?.to_owned();
    if start.dry_run {
        let found: Reply<DryRun> = api.post_json(&href, &body).await?;
        if json {
            return output::json(&found.text);
        }
        let DryRun { matched, matched_has_more, sample } = found.body;
        let more = if matched_has_more { " or more" } else { "" };
        output::line(&format!("{matched}{more} would be sent again"))?;
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

fn list(found: &[Replay]) -> String {
    let rows =
        found.iter().map(|one| [one.id.clone(), one.state.clone(), one.created_at.clone(), progress(one)]);
    table(["ID", "STATE", "STARTED", "PROGRESS"], rows)
}

async fn find(api: &Api, id: &str) -> Result<Reply<Replay>, CliError> {
    api.find("replay", id).await
}

async fn act(api: &Api, id: &str, rel: &'static str, json: bool) -> Result<(), CliError> {
    let found = find(api, id).await?.body;
    show(&api.post(found.links.action(rel, id, &found.state)?).await?, json)
}

fn show(replay: &Reply<Replay>, json: bool) -> Result<(), CliError> {
    if json {
        return output::json(&replay.text);
    }
    let one = &replay.body;
    output::text(&pairs([
        ("replay", one.id.clone()),
        ("state", one.state.clone()),
        ("progress", progress(one)),
        ("rate", format!("{} a second", one.rate_per_second)),
        ("started", one.created_at.clone()),
        ("ended", one.finished_at.clone().unwrap_or_else(|| "-".to_owned())),
    ]))
}

fn progress(one: &Replay) -> String {
    let more = if one.matched_has_more { "+" } else { "" };
    let gone = match one.no_longer_matching {
        Some(gone) if gone > 0 => format!("; {gone} did not fit any more"),
        _ => String::new(),
    };
    format!(
        "{} of {}{more} taken up, {} ended: {} delivered, {} failed, {} skipped, {} sent again by others{gone}",
        one.taken, one.matched, one.done, one.delivered, one.failed, one.skipped, one.taken_over
    )
}

fn items_table(items: &[Item]) -> String {
    let rows = items
        .iter()
        .map(|one| [one.number.to_string(), one.delivery_id.clone(), one.was.clone(), one.result.clone()]);
    table(["#", "DELIVERY", "WAS", "RESULT"], rows)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        start: Start,
    }

    fn body(line: &str) -> Result<Value, CliError> {
        Line::try_parse_from(line.split(' ')).unwrap().start.body()
    }

    #[test]
    fn everything_is_sent_again_only_where_that_is_said() {
        for line in ["start", "start --rate 5 --force --wait --idempotency-key k"] {
            let error = body(line).unwrap_err();
            assert_eq!(error.exit_code(), crate::cli::error::USAGE, "{line}");
            assert!(error.to_string().contains("--all"), "{error}");
        }
        for line in ["start --all", "start --dry-run"] {
            assert_eq!(body(line).unwrap()["filter"], json!({"state": "exhausted"}), "{line}");
        }
        let filter = |line| body(line).unwrap()["filter"].clone();
        assert_eq!(filter("start --state pending"), json!({"state": "pending"}));
        assert_eq!(filter("start --status-code 503"), json!({"state": "exhausted", "status_code": 503}));
    }
}
