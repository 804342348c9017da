//! `darkroom deliveries`: what became of callbacks, and what can be done about it.

use clap::Subcommand;
use serde::Deserialize;
use url::Url;

use super::api::{Api, Reply, Target};
use super::error::CliError;
use super::model::Links;
use super::output;
use super::pages::{self, Paging};
use super::several::Ids;
use super::table;

const EXAMPLES: &str = "\
Examples:
  darkroom deliveries undelivered                      what waits or was given up: those that were given up first
  darkroom deliveries list --state exhausted --destination https://hooks.example --status-code 503
  darkroom deliveries attempts dlv_0193f1c2a4b57d3e8f60718293a4b5c6
  darkroom deliveries replay dlv_0193f1c2a4b57d3e8f60718293a4b5c6
  darkroom replays start --dry-run                     for many at once

With --json the service's answers are printed to the letter, each on a line of its own: one for each page with --all, and \
one for each of several ids. Of several ids each is tried; the exit code is that of those that failed, or 1 where they differ.";

const UNKNOWN: &str = "-";

/// What to look at.
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
    /// List deliveries, the latest first
    List(List),
    /// List what has not arrived: given up, to be retried, and not tried yet
    Undelivered(Undelivered),
    /// Show a delivery
    Get(Id),
    /// Show each attempt of a delivery
    Attempts(Id),
    /// Send deliveries again at once, each with its whole schedule
    Replay {
        #[command(flatten)]
        ids: Ids,
        /// Also those that have arrived
        #[arg(long)]
        force: bool,
    },
    /// Call deliveries off that wait
    Cancel(Ids),
}

#[derive(clap::Args)]
struct Id {
    /// The delivery's id
    id: String,
}

#[derive(clap::Args)]
struct List {
    /// Only those at this state
    #[arg(long, value_parser = ["pending", "sending", "delivered", "exhausted", "cancelled", "undelivered"])]
    state: Option<String>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    paging: Paging,
}

#[derive(clap::Args)]
struct Undelivered {
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    paging: Paging,
}

/// Which deliveries; the same for lists and for replays.
#[derive(clap::Args, Default)]
pub(super) struct Filter {
    /// Only those to this destination: its id, or its origin such as https://hooks.example
    #[arg(long, value_name = "ORIGIN|ID")]
    pub(super) destination: Option<String>,
    /// Only those of this event, such as job.completed
    #[arg(long, value_name = "TYPE")]
    pub(super) event_type: Option<String>,
    /// Only those of this job
    #[arg(long, value_name = "ID")]
    pub(super) job: Option<String>,
    /// Only those whose latest attempt failed so: dns, connect, tls, timeout, reset, redirect, blocked_address, http, too_large, protocol
    #[arg(long, value_name = "CLASS")]
    pub(super) error_class: Option<String>,
    /// Only those whose latest attempt was answered with this status
    #[arg(long, value_name = "CODE")]
    pub(super) status_code: Option<u16>,
    /// Only those made then or later (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
    /// Only those made before then (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<String>,
}

impl Filter {
    /// By the names that the API has for them.
    pub(super) fn pairs(&self) -> Vec<(&'static str, String)> {
        let pairs = [
            ("destination", self.destination.clone()),
            ("event_type", self.event_type.clone()),
            ("job_id", self.job.clone()),
            ("error_class", self.error_class.clone()),
            ("status_code", self.status_code.map(|code| code.to_string())),
            ("since", self.since.clone()),
            ("until", self.until.clone()),
        ];
        pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// A delivery, as much as is shown of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Delivery {
    pub(super) id: String,
    event_type: String,
    job_id: String,
    destination: String,
    url: String,
    pub(super) state: String,
    attempt_count: u64,
    next_attempt_at: Option<String>,
    last_error: Option<Failure>,
    last_status_code: Option<u16>,
    created_at: String,
    finished_at: Option<String>,
    #[serde(rename = "_links")]
    links: Links,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Failure {
    class: String,
    fault: String,
    detail: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attempt {
    number: u64,
    trigger: String,
    started_at: String,
    duration_ms: u64,
    remote_addr: Option<String>,
    status_code: Option<u16>,
    error: Option<Failure>,
    next_attempt_at: Option<String>,
}

pub(super) async fn run(args: Args, target: &Target) -> Result<(), CliError> {
    let api = Api::new(target)?;
    match args.command {
        Command::List(List { state, filter, paging }) => {
            list(&api, state.as_deref(), &filter, &paging, args.json).await
        }
        Command::Undelivered(Undelivered { filter, paging }) => {
            list(&api, Some("undelivered"), &filter, &paging, args.json).await
        }
        Command::Get(Id { id }) => {
            let found = find(&api, &id).await?;
            if args.json { output::json(&found.text) } else { output::text(&details(&found.body)) }
        }
        Command::Attempts(Id { id }) => {
            let attempts = api.resolve(find(&api, &id).await?.body.links.href("attempts")?)?;
            pages::print(&api, attempts, &Paging::ALL, args.json, "attempts", attempts_table).await
        }
        Command::Replay { ids, force } => {
            ids.each(async |id: &str| act(&api, id, "replay", force, args.json).await).await
        }
        Command::Cancel(ids) => {
            ids.each(async |id: &str| act(&api, id, "cancel", false, args.json).await).await
        }
    }
}

async fn list(
    api: &Api,
    state: Option<&str>,
    filter: &Filter,
    paging: &Paging,
    json: bool,
) -> Result<(), CliError> {
    let mut url: Url = api.resolve(api.root().await?.href("deliveries")?)?;
    let state = state.map(|state| ("state", state.to_owned()));
    for (name, value) in state.into_iter().chain(filter.pairs()) {
        url.query_pairs_mut().append_pair(name, &value);
    }
    pages::print(api, url, paging, json, "deliveries", table).await
}

async fn find(api: &Api, id: &str) -> Result<Reply<Delivery>, CliError> {
    api.find("delivery", id).await
}

/// Follows the link `rel` of a delivery.
async fn act(api: &Api, id: &str, rel: &'static str, force: bool, json: bool) -> Result<(), CliError> {
    let found = find(api, id).await?.body;
    let mut url = match found.links.action(rel, id, &found.state) {
        Ok(href) => api.resolve(href)?,
        // One that has arrived shows no link to be sent again.
        Err(_) if force => api.resolve(&format!("{}/{rel}", found.links.href("self")?))?,
        Err(_) if rel == "replay" && found.state == "delivered" => {
            return Err(CliError::Arrived(id.to_owned()));
        }
        Err(error) => return Err(error),
    };
    if force {
        url.query_pairs_mut().append_pair("force", "true");
    }
    let after: Reply<Delivery> = api.post(url.as_str()).await?;
    if json { output::json(&after.text) } else { output::line(&format!("{id}  {}", after.body.state)) }
}

pub(super) fn table(deliveries: &[Delivery]) -> String {
    let rows = deliveries.iter().map(|one| {
        [
            one.id.clone(),
            one.state.clone(),
            one.attempt_count.to_string(),
            last(one.last_error.as_ref(), one.last_status_code),
            one.next_attempt_at.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
            one.event_type.clone(),
            one.destination.clone(),
        ]
    });
    table::table(["ID", "STATE", "ATTEMPTS", "LAST", "NEXT", "EVENT", "DESTINATION"], rows)
}

/// The status when there is one, else how it failed.
fn last(failure: Option<&Failure>, status: Option<u16>) -> String {
    match (status, failure) {
        (Some(status), _) => status.to_string(),
        (None, Some(failure)) => failure.class.clone(),
        (None, None) => UNKNOWN.to_owned(),
    }
}

fn details(one: &Delivery) -> String {
    let failure = one.last_error.as_ref();
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| UNKNOWN.to_owned());
    table::pairs([
        ("delivery", one.id.clone()),
        ("state", one.state.clone()),
        ("event", one.event_type.clone()),
        ("job", one.job_id.clone()),
        ("url", one.url.clone()),
        ("attempts", one.attempt_count.to_string()),
        ("next attempt", text(&one.next_attempt_at)),
        ("last status", last(failure, one.last_status_code)),
        ("last error", failure.map_or(UNKNOWN.to_owned(), explain)),
        ("created", one.created_at.clone()),
        ("ended", text(&one.finished_at)),
    ])
}

fn explain(failure: &Failure) -> String {
    format!("{} (fault of: {}): {}", failure.class, failure.fault, failure.detail)
}

fn attempts_table(attempts: &[Attempt]) -> String {
    let rows = attempts.iter().map(|one| {
        let failed = one.error.as_ref().map(explain);
        let status = one.status_code.map_or(String::new(), |status| format!("{status} "));
        [
            one.number.to_string(),
            one.started_at.clone(),
            one.trigger.clone(),
            format!("{} ms", one.duration_ms),
            one.remote_addr.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
            format!("{status}{}", failed.unwrap_or_else(|| "delivered".to_owned())),
            one.next_attempt_at.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        ]
    });
    table::table(["#", "STARTED", "WHY", "TOOK", "ADDRESS", "RESULT", "NEXT"], rows)
}
