//! `darkroom jobs`: look at jobs, and act on them.

use std::time::Duration;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use url::Url;

use super::api::{Api, Reply, Target};
use super::error::CliError;
use super::model::Job;
use super::pages::{self, Paging};
use super::{output, render, watch};
use crate::domain::job::JobStatus;

const EXAMPLES: &str = "\
Examples:
  darkroom jobs list --status failed --limit 20
  darkroom jobs get job_0193f1c2a4b57d3e8f60718293a4b5c6 --json
  darkroom jobs watch job_0193f1c2a4b57d3e8f60718293a4b5c6 --timeout 60
  darkroom jobs list --tag cats --created-after 2026-11-01T00:00:00Z --include-deleted
  darkroom jobs cancel job_0193f1c2a4b57d3e8f60718293a4b5c6 job_0193f1c2b1307a4d9c2e5f6071829304

With --json the service's answers are printed to the letter: `list --all` prints one for each page.";

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
    Cancel(Ids),
    /// Queue jobs again that failed or were cancelled
    Retry(Ids),
    /// Hide jobs from lists; they can be restored until they are purged, and are cancelled unless they have ended
    Delete(Ids),
    /// Take the deletion of jobs back
    Restore(Ids),
}

#[derive(clap::Args)]
struct Ids {
    /// The jobs' ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
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
        Command::List(filter) => list(&api, &filter, args.json).await,
        Command::Watch { id, timeout } => {
            let job = find(&api, &id).await?;
            watch::follow_and_print(&api, job, Duration::from_secs(timeout), args.json).await
        }
        Command::Cancel(ids) => act(&api, &ids, "cancel", args.json).await,
        Command::Retry(ids) => act(&api, &ids, "retry", args.json).await,
        Command::Delete(ids) => act(&api, &ids, "delete", args.json).await,
        Command::Restore(ids) => act(&api, &ids, "restore", args.json).await,
    }
}

/// Follows the link `rel` of each job. Those that do not allow it are named, and the others done all the same.
async fn act(api: &Api, ids: &Ids, rel: &'static str, json: bool) -> Result<(), CliError> {
    let mut refused = None;
    for id in &ids.ids {
        match act_on(api, id, rel, json).await {
            Ok(()) => {}
            Err(error @ (CliError::NotNow { .. } | CliError::Api(_))) => {
                if let Some(earlier) = refused.take() {
                    output::note(&format!("error: {earlier}"));
                }
                if matches!(error, CliError::Api(_)) && ids.ids.len() > 1 {
                    output::note(&format!("{id} was refused:"));
                }
                refused = Some(error);
            }
            Err(error) => {
                if let Some(earlier) = refused {
                    output::note(&format!("error: {earlier}"));
                }
                return Err(error);
            }
        }
    }
    refused.map_or(Ok(()), Err)
}

async fn act_on(api: &Api, id: &str, rel: &'static str, json: bool) -> Result<(), CliError> {
    let job = find(api, id).await?;
    let Some(href) = job.body.links.find(rel) else {
        let state = if job.body.deleted_at.is_some() { "deleted" } else { job.body.status.as_str() };
        return Err(CliError::NotNow { id: id.to_owned(), action: rel, state: state.to_owned() });
    };
    let after = if rel == "delete" {
        api.delete(href).await?;
        find(api, id).await?
    } else {
        api.post(href).await?
    };
    if json {
        output::json(&after.text)
    } else {
        let purge = after.body.purge_at.as_ref().filter(|_| after.body.deleted_at.is_some());
        let until = purge.map(|time| format!(", can be restored until {time}")).unwrap_or_default();
        output::text(&format!("{id}  {}{until}", after.body.status))
    }
}

async fn find(api: &Api, id: &str) -> Result<Reply<Job>, CliError> {
    let href = api.root().await?.expand("job", "id", id)?;
    api.get(&href).await
}

async fn list(api: &Api, filter: &Filter, json: bool) -> Result<(), CliError> {
    let href = filter.apply(api.resolve(api.root().await?.href("jobs")?)?);
    let jobs: Vec<Job> = pages::read(api, href, filter.paging.all, json).await?;
    if json {
        return Ok(());
    }
    if jobs.is_empty() {
        output::note("no jobs");
        return Ok(());
    }
    output::text(&render::list(&jobs))
}

impl Filter {
    /// The collection's URL with the filter as its query; the links to further pages carry it by themselves.
    fn apply(&self, mut url: Url) -> String {
        let limit = self.paging.limit.map(|limit| limit.to_string());
        let deleted = self.include_deleted.then(|| "true".to_owned());
        for (name, value) in [
            ("status", &self.status),
            ("tag", &self.tag),
            ("created_after", &self.created_after),
            ("created_before", &self.created_before),
            ("include_deleted", &deleted),
            ("limit", &limit),
        ] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        url.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(status: Option<&str>, limit: Option<u32>, url: &str) -> String {
        let paging = Paging { limit, ..Paging::default() };
        Filter { status: status.map(str::to_owned), paging, ..Filter::default() }.apply(url.parse().unwrap())
    }

    #[test]
    fn the_filter_becomes_the_links_query() {
        let jobs = "https://a.example/v1/jobs";
        assert_eq!(applied(None, None, jobs), jobs);
        assert_eq!(applied(Some("a&b"), Some(5), jobs), "https://a.example/v1/jobs?status=a%26b&limit=5");
        assert_eq!(applied(None, Some(5), &format!("{jobs}?x=1")), "https://a.example/v1/jobs?x=1&limit=5");
    }
}
