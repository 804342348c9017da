//! `darkroom queue`: how much waits, and whether it moves.

use clap::{Subcommand, ValueEnum};

use super::api::{Api, Reply, Target};
use super::error::CliError;
use super::model::Queue;
use super::output;
use super::table::pairs;

/// What to do with the queue.
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
    /// Show how many jobs wait, and what is paused
    Show,
    /// Stop taking jobs in, and working on them, until they are resumed; what runs goes on
    Pause(What),
    /// Go on with what was paused
    Resume(What),
}

#[derive(clap::Args)]
struct What {
    /// Only this
    #[arg(value_enum)]
    what: Option<Part>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// Taking jobs in
    Intake,
    /// Working on them
    Work,
}

pub(super) async fn run(args: Args, target: &Target) -> Result<(), CliError> {
    let api = Api::new(target)?;
    let queue: Reply<Queue> = api.get(api.root().await?.href("queue")?).await?;
    let queue = match args.command {
        Command::Show => queue,
        Command::Pause(what) => set(&api, queue, "pause", &what).await?,
        Command::Resume(what) => set(&api, queue, "resume", &what).await?,
    };
    if args.json { output::json(&queue.text) } else { output::text(&text(&queue.body)) }
}

/// Without the link there is nothing left to pause, or to resume.
async fn set(api: &Api, queue: Reply<Queue>, rel: &str, what: &What) -> Result<Reply<Queue>, CliError> {
    let Some(href) = queue.body.links.find(rel) else { return Ok(queue) };
    let mut url = api.resolve(href)?;
    if let Some(part) = what.what {
        let name = match part {
            Part::Intake => "intake",
            Part::Work => "work",
        };
        url.query_pairs_mut().append_pair("what", name);
    }
    api.post(url.as_str()).await
}

fn text(queue: &Queue) -> String {
    let state = |paused| if paused { "paused" } else { "on" };
    pairs([
        ("waiting", format!("{} of {}", queue.waiting, queue.capacity)),
        ("to fetch", format!("{} of {}", queue.fetches.waiting, queue.fetches.capacity)),
        ("intake", state(queue.paused.intake).to_owned()),
        ("work", state(queue.paused.work).to_owned()),
    ])
}
