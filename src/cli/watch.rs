//! Following a job to its end by polling its `self` link.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::api::{Api, Reply};
use super::error::CliError;
use super::model::Job;
use super::progress::Progress;
use super::{output, render};

/// A small picture takes a fraction of a second, and `Retry-After` can say no less than one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The steady pace where the service names none, and the pause after a failed request.
const STEADY_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A service that restarts is back within this many requests.
const MAX_FAILURES: u32 = 5;

/// Follows the job, then prints how it stands: the document itself, or for people.
pub(super) async fn follow_and_print(
    api: &Api,
    mut job: Reply<Job>,
    limit: Duration,
    json: bool,
) -> Result<(), CliError> {
    let outcome = follow(api, &mut job, limit, Progress::on_stderr()).await;
    // Also when it failed or takes too long: a script gets the latest state in any case.
    if json { output::json(&job.text) } else { output::text(&render::details(&job.body)) }?;
    outcome
}

/// Keeps `latest` up to date until the job is over; an error unless it is completed within `limit`.
pub(super) async fn follow(
    api: &Api,
    latest: &mut Reply<Job>,
    limit: Duration,
    mut progress: Progress,
) -> Result<(), CliError> {
    let href = latest.body.links.href("self")?.to_owned();
    match timeout(limit, poll(api, &href, latest, &mut progress)).await {
        Ok(polled) => polled?,
        Err(_) => {
            let Job { id, status, .. } = latest.body.clone();
            return Err(CliError::JobTimedOut { id, status, waited: limit });
        }
    }
    verdict(&latest.body)
}

async fn poll(
    api: &Api,
    href: &str,
    latest: &mut Reply<Job>,
    progress: &mut Progress,
) -> Result<(), CliError> {
    let mut pace = Pace::new();
    let mut failures = 0;
    loop {
        progress.show(&latest.body);
        if latest.body.is_over() {
            return Ok(());
        }
        sleep(pace.next(latest.retry_after)).await;
        match api.get(href).await {
            Ok(reply) => {
                *latest = reply;
                failures = 0;
            }
            Err(error) if error.is_transient() && failures < MAX_FAILURES => {
                failures += 1;
                sleep(pause_after(&error)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn verdict(job: &Job) -> Result<(), CliError> {
    if job.is_completed() {
        return Ok(());
    }
    let reason =
        job.error.as_ref().map(|error| format!(": {}", render::error_text(error))).unwrap_or_default();
    Err(CliError::JobFailed { id: job.id.clone(), status: job.status.clone(), reason })
}

/// As long as the service asks for when it refuses.
fn pause_after(error: &CliError) -> Duration {
    let asked = match error {
        CliError::Api(problem) => problem.retry_after,
        _ => None,
    };
    asked.unwrap_or(STEADY_PAUSE).min(LONGEST_PAUSE)
}

/// Short pauses at first, which grow up to what the service asks for.
struct Pace(Duration);

impl Pace {
    fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let steady = retry_after.unwrap_or(STEADY_PAUSE).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let pause = self.0.min(steady);
        self.0 = (pause * 3 / 2).min(steady);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(retry_after: Option<u64>) -> Vec<u128> {
        let mut pace = Pace::new();
        (0..8).map(|_| pace.next(retry_after.map(Duration::from_secs)).as_millis()).collect()
    }

    #[test]
    fn the_pace_grows_to_what_the_service_asks_for() {
        assert_eq!(pauses(None), [200, 300, 450, 675, 1012, 1518, 2000, 2000]);
        assert_eq!(pauses(Some(1)), [200, 300, 450, 675, 1000, 1000, 1000, 1000]);
        assert_eq!(pauses(Some(0)), [200; 8]);
        assert_eq!(pauses(Some(3600)).last(), Some(&3417));
    }

    #[test]
    fn only_a_completed_job_is_a_success() {
        let job = |status: &str| Job { status: status.to_owned(), ..Job::default() };
        assert!(verdict(&job("completed")).is_ok());
        for status in ["failed", "cancelled"] {
            assert_eq!(verdict(&job(status)).unwrap_err().exit_code(), crate::cli::error::JOB_FAILED);
        }
    }
}
