//! Many jobs in one go: called off by a filter, or handed in from a file.

use std::io::Read as _;
use std::path::Path;

use clap::builder::PossibleValuesParser;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Api, Reply};
use super::error::CliError;
use super::model::{Job, Links};
use super::{output, render};
use crate::domain::job::JobStatus;

/// Which jobs are meant, instead of ids.
#[derive(clap::Args, Default)]
pub(super) struct Matching {
    /// Call all jobs off that fit the filters, of which at least one is needed
    #[arg(long, conflicts_with = "ids", requires = "filters")]
    all_matching: bool,
    /// Only jobs with this status
    #[arg(long, group = "filters", requires = "all_matching", value_parser = PossibleValuesParser::new([JobStatus::Queued, JobStatus::Processing].map(JobStatus::as_str)))]
    status: Option<String>,
    /// Only jobs with this label
    #[arg(long, group = "filters", requires = "all_matching")]
    tag: Option<String>,
    /// Only jobs accepted later than this (RFC 3339)
    #[arg(long, group = "filters", requires = "all_matching", value_name = "TIME")]
    created_after: Option<String>,
    /// Only jobs accepted earlier than this (RFC 3339)
    #[arg(long, group = "filters", requires = "all_matching", value_name = "TIME")]
    created_before: Option<String>,
    /// Only jobs of this client; for operators
    #[arg(long, group = "filters", requires = "all_matching", value_name = "NAME")]
    client: Option<String>,
    /// Only say how many, and show the first
    #[arg(long, requires = "all_matching")]
    dry_run: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cancelled {
    matched: u64,
    cancelled: u64,
    stopping: u64,
    skipped: u64,
    sample: Vec<Job>,
    #[serde(rename = "_links")]
    links: Links,
}

impl Matching {
    pub(super) fn is_wanted(&self) -> bool {
        self.all_matching
    }

    /// Call after call, until the service has gone through all.
    pub(super) async fn cancel(&self, api: &Api, json: bool) -> Result<(), CliError> {
        let root = api.root().await?;
        let template = root.href("cancel_jobs")?;
        let mut url = api.resolve(template.split('{').next().unwrap_or_default())?;
        let dry_run = self.dry_run.then(|| "true".to_owned());
        for (name, value) in [
            ("status", &self.status),
            ("tag", &self.tag),
            ("created_after", &self.created_after),
            ("created_before", &self.created_before),
            ("client", &self.client),
            ("dry_run", &dry_run),
        ] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let (mut href, mut all) = (String::from(url), Cancelled::default());
        loop {
            let Reply { text, body, .. }: Reply<Cancelled> = api.post(&href).await?;
            if json {
                output::json(&text)?;
            }
            all.matched += body.matched;
            all.cancelled += body.cancelled;
            all.stopping += body.stopping;
            all.skipped += body.skipped;
            if all.sample.is_empty() {
                all.sample = body.sample;
            }
            match body.links.find("next") {
                // One that leads to itself would go on for ever.
                Some(next) if next != href => href = next.to_owned(),
                _ => break,
            }
        }
        match (json, self.dry_run) {
            (true, _) => Ok(()),
            (false, true) => {
                if !all.sample.is_empty() {
                    output::text(&render::list(&all.sample))?;
                }
                output::line(&format!("{} would be called off", all.matched))
            }
            (false, false) => output::line(&format!(
                "{} matched: {} cancelled, {} stop at their next step, {} had ended by themselves",
                all.matched, all.cancelled, all.stopping, all.skipped
            )),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Batch {
    refused: usize,
    items: Vec<Item>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    index: usize,
    status: u16,
    job: Option<Job>,
    problem: Option<Refusal>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    code: String,
    title: String,
    detail: Option<String>,
}

/// Hands in the jobs of a file: a document with `jobs`, or one a line; `-` is the standard input.
pub(super) async fn submit(api: &Api, file: &Path, json: bool) -> Result<(), CliError> {
    let name = file.display();
    let text =
        read(file).map_err(|source| CliError::input(format!("cannot read the jobs in {name}"), source))?;
    let body = document(&text).map_err(|problem| CliError::Usage(format!("{name}: {problem}")))?;
    let root = api.root().await?;
    let Reply { text, body, .. }: Reply<Batch> = api.post_json(root.href("batch")?, &body).await?;
    if json {
        output::json(&text)?;
    } else {
        for item in &body.items {
            output::line(&item.line())?;
        }
    }
    let of = body.items.len();
    if body.refused > 0 {
        Err(CliError::Several { failed: body.refused, of, code: super::error::FAILURE })
    } else {
        Ok(())
    }
}

impl Item {
    fn line(&self) -> String {
        let became = match (&self.job, &self.problem) {
            (Some(job), _) => format!("{}  {}", job.id, job.status),
            (None, Some(Refusal { code, title, detail })) => {
                format!("{code}: {}", detail.as_deref().unwrap_or(title))
            }
            (None, None) => String::new(),
        };
        format!("{:>3}  {}  {became}", self.index, self.status)
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

fn document(text: &str) -> Result<Value, String> {
    if let Ok(document) = serde_json::from_str::<Value>(text)
        && document.get("jobs").is_some()
    {
        return Ok(document);
    }
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let jobs = lines.map(|(n, line)| {
        serde_json::from_str::<Value>(line).map_err(|error| format!("line {n} is no JSON: {error}"))
    });
    Ok(json!({ "jobs": jobs.collect::<Result<Vec<_>, _>>()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_document_or_one_job_a_line() {
        let expected = json!({"jobs": [{"source_url": "a"}, {"source_url": "b"}]});
        assert_eq!(document(&expected.to_string()), Ok(expected.clone()));
        assert_eq!(document("{\"source_url\": \"a\"}\n\n{\"source_url\": \"b\"}\n"), Ok(expected));
        assert_eq!(document("{\"source_url\": \"a\"}"), Ok(json!({"jobs": [{"source_url": "a"}]})));
        assert!(document("{}\n{").unwrap_err().starts_with("line 2 "));
    }
}
