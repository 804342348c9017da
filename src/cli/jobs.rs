//! `darkroom jobs`: look at jobs, and act on them.

use std::time::Duration;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use url::Url;

use super::api::{Api, Reply, Target};
use super::bulk::Matching;
use super::error::CliError;
use super::model::Job;
use super::pages::{self, Paging};
use super::several::Ids;
use super::{output, render, watch};
use crate::domain::job::JobStatus;

const EXAMPLES: &str = "\
Examples:
  darkroom jobs list --status failed --limit 20
  darkroom jobs get job_0193f1c2a4b57d3e8f60718293a4b5c6 --json
  darkroom jobs watch job_0193f1c2a4b57d3e8f60718293a4b5c6 --timeout 60
  darkroom jobs list --tag cats --created-after 2026-11-01T00:00:00Z --include-deleted
  darkroom jobs cancel job_0193f1c2a4b57d3e8f60718293a4b5c6 job_0193f1c2b1307a4d9c2e5f6071829304
  darkroom jobs cancel --all-matching --status queued --tag cats --dry-run

With --json the service's answers are printed to the letter, each on a line of its own: one for each page with --all, and \
one for each of several ids. Of several ids each is tried; the exit code is that of those that failed, or 1 where they differ.";

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
    /// Show a job
    Get {
        /// The job's id
        id: String,
    },
    /// List jobs, the latest first
    List(Filter),
    /// Follow a job to its end; exit code 0 when it is completed, 4 when it failed, 5 when it takes too long
    Watch {
        /// The job's id
        id: String,
        /// How long to wait
        #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
        timeout: u64,
    },
    /// Call jobs off: one that waits is cancelled, one that runs stops at its next step
    Cancel(Cancel),
    /// Queue jobs again that failed or were cancelled
    Retry(Ids),
    /// Hide jobs from lists; they can be restored until they are purged, and are cancelled unless they have ended
    Delete(Ids),
    /// Take the deletion of jobs back
    Restore(Ids),
}

#[derive(clap::Args)]
struct Cancel {
    /// The ids; with --json, each answer is a JSON document on a line of its own
    #[arg(required_unless_present = "all_matching", value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    matching: Matching,
}

#[derive(clap::Args, Default)]
struct Filter {
    /// Only jobs with this status
    #[arg(long, value_parser = PossibleValuesParser::new(JobStatus::ALL.map(JobStatus::as_str)))]
    status: Option<String>,
    /// Only jobs with this label
    #[arg(long)]
    tag: Option<String>,
    /// Only jobs accepted later than this (RFC 3339)
    #[arg(long, value_name = "TIME")]
    created_after: Option<String>,
    /// Only jobs accepted earlier than this (RFC 3339)
    #[arg(long, value_name = "TIME")]
    created_before: Option<String>,
    /// Deleted jobs, too
    #[arg(long)]
    include_deleted: bool,
    #[command(flatten)]
    paging: Paging,
}

pub(super) async fn run(args: Args, target: &Target) -> Result<(), CliError> {
    let api = Api::new(target)?;
    match args.command {
        Command::Get { id } => {
            let job = find(&api, &id).await?;
            if args.json { output::json(&job.text) } else { output::text(&render::details(&job.body)) }
        }
        Command::List(filter) => {
            let list = filter.apply(api.resolve(api.root().await?.href("jobs")?)?);
            pages::print(&api, list, &filter.paging, args.json, "jobs", render::list).await
        }
        Command::Watch { id, timeout } => {
            let job = find(&api, &id).await?;
            watch::follow_and_print(&api, job, Duration::from_secs(timeout), args.json).await
        }
        Command::Cancel(Cancel { ids, matching }) => match matching.is_wanted() {
            true => matching.cancel(&api, args.json).await,
            false => each(&api, &Ids { ids }, "cancel", args.json).await,
        },
        Command::Retry(ids) => each(&api, &ids, "retry", args.json).await,
        Command::Delete(ids) => each(&api, &ids, "delete", args.json).await,
        Command::Restore(ids) => each(&api, &ids, "restore", args.json).await,
    }
}

async fn each(api: &Api, ids: &Ids, rel: &'static str, json: bool) -> Result<(), CliError> {
    ids.each(async |id: &str| act(api, id, rel, json).await).await
}

/// Follows the link `rel` of a job.
async fn act(api: &Api, id: &str, rel: &'static str, json: bool) -> Result<(), CliError> {
    let job = find(api, id).await?.body;
    let state = if job.deleted_at.is_some() { "deleted" } else { job.status.as_str() };
    let href = job.links.action(rel, id, state)?;
    let after = if rel == "delete" {
        api.delete(href).await?;
        find(api, id).await?
    } else {
        api.post(href).await?
    };
    if json {
        return output::json(&after.text);
    }
    let purge = after.body.purge_at.as_ref().filter(|_| after.body.deleted_at.is_some());
    let until = purge.map(|time| format!(", can be restored until {time}")).unwrap_or_default();
    output::line(&format!("{id}  {}{until}", after.body.status))
}

async fn find(api: &Api, id: &str) -> Result<Reply<Job>, CliError> {
    api.find("job", id).await
}

impl Filter {
    /// The collection's URL with the filter as its query; the links to further pages carry it by themselves.
    fn apply(&self, mut url: Url) -> Url {
        let deleted = self.include_deleted.then(|| "true".to_owned());
        for (name, value) in [
            ("status", &self.status),
            ("tag", &self.tag),
            ("created_after", &self.created_after),
            ("created_before", &self.created_before),
            ("include_deleted", &deleted),
        ] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(status: Option<&str>, url: &str) -> String {
        Filter { status: status.map(str::to_owned), ..Filter::default() }.apply(url.parse().unwrap()).into()
    }

    #[test]
    fn the_filter_becomes_the_links_query() {
        let jobs = "https://a.example/v1/jobs";
        assert_eq!(applied(None, jobs), jobs);
        assert_eq!(applied(Some("a&b"), jobs), "https://a.example/v1/jobs?status=a%26b");
        assert_eq!(applied(Some("a"), &format!("{jobs}?x=1")), "https://a.example/v1/jobs?x=1&status=a");
    }
}
