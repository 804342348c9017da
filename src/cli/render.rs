//! Jobs as people read them.

use indicatif::HumanBytes;

use super::model::{Artifact, Callback, Input, Job, JobError};
use super::table::{pairs, table};

const NONE: &str = "-";

/// A job that was just accepted.
pub(super) fn accepted(job: &Job) -> String {
    let url = job.links.find("self").unwrap_or(NONE);
    pairs([("job", job.id.clone()), ("status", job.status.clone()), ("url", url.to_owned())])
}

/// All that matters of a job.
pub(super) fn details(job: &Job) -> String {
    let mut rows = vec![("job", job.id.clone()), ("status", status(job))];
    let times = [
        ("created", &job.created_at),
        ("starts", &job.start_at),
        ("started", &job.started_at),
        ("deadline", &job.deadline_at),
        ("finished", &job.finished_at),
        ("deleted", &job.deleted_at),
        ("purged", &job.purge_at),
    ];
    rows.extend(times.into_iter().filter_map(|(name, time)| Some((name, time.clone()?))));
    rows.extend(job.input.as_ref().map(|input| ("picture", input_text(input))));
    rows.extend(job.callback.as_ref().map(|callback| ("callback", callback_text(callback))));
    rows.extend(job.error.as_ref().map(|error| ("error", error_text(error))));
    if !job.tags.is_empty() {
        rows.push(("tags", job.tags.join(", ")));
    }
    rows.extend(job.links.find("self").map(|url| ("url", url.to_owned())));
    if job.artifacts.is_empty() {
        return pairs(rows);
    }
    format!("{}\n\n{}", pairs(rows), artifacts(&job.artifacts))
}

/// A list of jobs, one a line.
pub(super) fn list(jobs: &[Job]) -> String {
    let rows = jobs.iter().map(|job| {
        let input = job.input.as_ref();
        [
            job.id.clone(),
            status(job),
            job.created_at.clone().unwrap_or_else(|| NONE.to_owned()),
            input
                .filter(|input| input.width > 0)
                .map_or_else(|| NONE.to_owned(), |input| size(input.width, input.height)),
            job.callback.as_ref().map_or_else(|| NONE.to_owned(), |callback| callback.status.clone()),
            input.and_then(|input| input.filename.clone()).unwrap_or_else(|| NONE.to_owned()),
        ]
    });
    table(["JOB", "STATUS", "CREATED", "SIZE", "CALLBACK", "PICTURE"], rows)
}

/// Where a job is, in a few words: `processing 33 %, preview`.
pub(super) fn status(job: &Job) -> String {
    let Some(progress) = job.progress.as_ref().filter(|_| job.status == "processing") else {
        return job.status.clone();
    };
    let mut text = job.status.clone();
    if let Some(percent) = progress.percent {
        text.push_str(&format!(" {percent:.0} %"));
    }
    if let Some(stage) = &progress.stage {
        text.push_str(&format!(", {stage}"));
    }
    text
}

/// Why a job failed.
pub(super) fn error_text(error: &JobError) -> String {
    format!("{}: {} ({})", error.title, error.detail, error.code)
}

pub(super) fn size(width: u32, height: u32) -> String {
    format!("{width} x {height}")
}

fn artifacts(artifacts: &[Artifact]) -> String {
    let rows = artifacts.iter().map(|artifact| {
        let bytes = HumanBytes(artifact.bytes).to_string();
        [artifact.name.clone(), size(artifact.width, artifact.height), bytes, artifact.url.clone()]
    });
    table(["ARTIFACT", "SIZE", "BYTES", "URL"], rows)
}

fn input_text(input: &Input) -> String {
    let source = input.source_url.as_ref().map(|url| format!("from {url}"));
    if input.media_type.is_empty() {
        return source.unwrap_or_else(|| NONE.to_owned());
    }
    let facts =
        format!("{}, {}, {}", input.media_type, size(input.width, input.height), HumanBytes(input.bytes));
    let facts = [Some(facts), source].into_iter().flatten().collect::<Vec<_>>().join(", ");
    match &input.filename {
        Some(name) => format!("{name}, {facts}"),
        None => facts,
    }
}

fn callback_text(callback: &Callback) -> String {
    let Callback { url, status, attempts, next_attempt_at } = callback;
    let next = next_attempt_at.as_ref().map(|time| format!(", next {time}")).unwrap_or_default();
    format!("{status}, attempts: {attempts}{next}, to {url}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(json: serde_json::Value) -> Job {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn progress_shows_while_it_runs() {
        let running =
            serde_json::json!({"status": "processing", "progress": {"percent": 33, "stage": "preview"}});
        assert_eq!(status(&job(running)), "processing 33 %, preview");
        let over = serde_json::json!({"status": "completed", "progress": {"percent": 100, "stage": null}});
        assert_eq!(status(&job(over)), "completed");
        assert_eq!(status(&job(serde_json::json!({"status": "processing"}))), "processing");
    }

    #[test]
    fn details_leave_out_what_is_not_there() {
        let bare = job(serde_json::json!({"id": "job_1", "status": "queued"}));
        assert_eq!(details(&bare), "job     job_1\nstatus  queued");
        let failed = job(serde_json::json!({
            "id": "job_1", "status": "failed",
            "error": {"code": "image-undecodable", "title": "Cannot be decoded", "detail": "CRC"},
            "input": {"media_type": "image/png", "bytes": 2048, "width": 4, "height": 3},
        }));
        let text = details(&failed);
        assert!(text.contains("picture  image/png, 4 x 3, 2.00 KiB"), "{text}");
        assert!(text.contains("error    Cannot be decoded: CRC (image-undecodable)"), "{text}");
    }

    #[test]
    fn a_list_has_a_line_for_each_job() {
        let jobs =
            [job(serde_json::json!({"id": "job_1", "status": "queued", "input": {"filename": "a.jpg"}}))];
        let text = list(&jobs);
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with("a.jpg"), "{text}");
    }
}
