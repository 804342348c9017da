//! What the commands need of the service's answers, read leniently: what is missing or unknown is no error,
//! and `--json` prints the answer itself.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::error::CliError;

/// Everything that RFC 3986 does not call unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The links of a resource.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Links {
    #[serde(flatten)]
    links: BTreeMap<String, Link>,
    /// Whether a link that is missing is one that this caller never has.
    #[serde(skip)]
    is_root: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct Link {
    href: String,
}

impl Links {
    pub(super) fn of_root(self) -> Self {
        Self { is_root: true, ..self }
    }

    /// Where `rel` leads.
    pub(super) fn href(&self, rel: &'static str) -> Result<&str, CliError> {
        let missing = if self.is_root { CliError::NotOffered(rel) } else { CliError::MissingLink(rel) };
        self.find(rel).ok_or(missing)
    }

    /// Where `rel` leads, if anywhere.
    pub(super) fn find(&self, rel: &str) -> Option<&str> {
        self.links.get(rel).map(|link| link.href.as_str())
    }

    /// Where the action `rel` on a resource is asked for. What is not possible now has no link.
    pub(super) fn action(&self, rel: &'static str, id: &str, state: &str) -> Result<&str, CliError> {
        let not_now = || CliError::NotNow { id: id.to_owned(), action: rel, state: state.to_owned() };
        self.find(rel).ok_or_else(not_now)
    }

    /// Where the template `rel` leads with `{name}` filled in: simple expansion (RFC 6570, section 3.2.2).
    pub(super) fn expand(&self, rel: &'static str, name: &str, value: &str) -> Result<String, CliError> {
        let value = utf8_percent_encode(value, RESERVED).to_string();
        Ok(self.href(rel)?.replace(&format!("{{{name}}}"), &value))
    }
}

/// The service's root.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Root {
    #[serde(rename = "_links")]
    pub(super) links: Links,
}

/// The queue.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Queue {
    pub(super) waiting: u64,
    pub(super) capacity: u64,
    pub(super) fetches: Fetches,
    pub(super) paused: Paused,
    pub(super) imaging: Imaging,
    #[serde(rename = "_links")]
    pub(super) links: Links,
}

/// Jobs whose picture is still to be fetched.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fetches {
    pub(super) waiting: u64,
    pub(super) capacity: u64,
}

/// Where pictures are worked on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Imaging {
    pub(super) isolation: String,
    pub(super) walls: Vec<String>,
    pub(super) missing: Vec<String>,
}

/// The list of secrets.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Secrets {
    pub(super) items: Vec<Secret>,
    #[serde(rename = "_links")]
    pub(super) links: Links,
}

/// A secret: what is known of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Secret {
    pub(super) id: Option<String>,
    pub(super) state: String,
    pub(super) fingerprint: String,
    pub(super) created_at: Option<String>,
    pub(super) expires_at: Option<String>,
}

/// The secret that was just made.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct NewSecret {
    pub(super) secret: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Paused {
    pub(super) intake: bool,
    pub(super) work: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) created_at: Option<String>,
    pub(super) started_at: Option<String>,
    pub(super) finished_at: Option<String>,
    pub(super) start_at: Option<String>,
    pub(super) deadline_at: Option<String>,
    pub(super) deleted_at: Option<String>,
    pub(super) purge_at: Option<String>,
    pub(super) progress: Option<Progress>,
    pub(super) input: Option<Input>,
    pub(super) artifacts: Vec<Artifact>,
    pub(super) callback: Option<Callback>,
    pub(super) tags: Vec<String>,
    pub(super) error: Option<JobError>,
    #[serde(rename = "_links")]
    pub(super) links: Links,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    pub(super) percent: Option<f64>,
    pub(super) stage: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Input {
    pub(super) filename: Option<String>,
    pub(super) source_url: Option<String>,
    /// Empty until the picture is fetched, as the rest is.
    pub(super) media_type: String,
    pub(super) bytes: u64,
    pub(super) width: u32,
    pub(super) height: u32,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Artifact {
    pub(super) name: String,
    pub(super) media_type: String,
    pub(super) bytes: u64,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) sha256: String,
    pub(super) url: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Callback {
    pub(super) url: String,
    pub(super) status: String,
    pub(super) attempts: u64,
    pub(super) next_attempt_at: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobError {
    pub(super) code: String,
    pub(super) title: String,
    pub(super) detail: String,
}

impl Job {
    /// Whether its story is over. A status that this version does not know is not the end.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled")
    }

    pub(super) fn is_completed(&self) -> bool {
        self.status == "completed"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(rel: &str, href: &str) -> Links {
        serde_json::from_value(serde_json::json!({ rel: { "rel": rel, "href": href, "method": "GET" } }))
            .unwrap()
    }

    #[test]
    fn a_template_is_filled_in_and_cannot_be_broken_out_of() {
        let links = links("job", "http://a.example/v1/jobs/{id}");
        assert_eq!(links.expand("job", "id", "job_1").unwrap(), "http://a.example/v1/jobs/job_1");
        assert_eq!(
            links.expand("job", "id", "../x?y=é#").unwrap(),
            "http://a.example/v1/jobs/..%2Fx%3Fy%3D%C3%A9%23"
        );
        assert!(matches!(links.expand("jobs", "id", "x"), Err(CliError::MissingLink("jobs"))));
    }

    #[test]
    fn missing_and_unknown_members_are_no_error() {
        let job: Job =
            serde_json::from_str(r#"{"id":"job_1","status":"queued","progress":null,"mood":"fine"}"#)
                .unwrap();
        assert_eq!((job.id.as_str(), job.is_over(), job.artifacts.len()), ("job_1", false, 0));
        let later: Job = serde_json::from_str(r#"{"status":"archived"}"#).unwrap();
        assert!(!later.is_over() && !later.is_completed());
    }
}
