//! `darkroom demo`: the whole story on this machine, checked at every step.

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::HumanBytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::api::{Api, Target};
use super::artifacts::{self, Saved};
use super::error::CliError;
use super::model::Job;
use super::progress::Progress;
use super::receiver::{Callback, Policy, Receiver, Verdict};
use super::submit::Submission;
use super::{output, picture, render, secret, table, watch};
use crate::clock::{Clock, Stopwatch, entropy};
use crate::config::{Config, Sources};
use crate::domain::event::EventKind;
use crate::{app, telemetry};

const NOTES: &str = "\
Examples:
  darkroom demo
  darkroom demo photo.jpg --keep ./demo

It starts a service of its own and a receiver, both on loopback, submits the picture, follows the job, \
waits for the callback, verifies its signature, fetches the artifacts and opens each. \
The exit code is 0 if all of that held, else 1. The folder stays, so that the artifacts can be looked at.";

/// What to show.
#[derive(clap::Args)]
#[command(after_help = NOTES)]
pub(super) struct Args {
    /// The picture to submit; without it, one is painted
    image: Option<PathBuf>,
    /// Keep everything in this folder, instead of a new one among the temporary files
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// How long all of it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    demo(args).await.map_err(|error| CliError::Demo(Box::new(error)))
}

async fn demo(args: Args) -> Result<(), CliError> {
    let stopwatch = Stopwatch::start();
    let limit = Duration::from_secs(args.timeout);
    let folder = Folder::create(args.keep)?;
    say("folder", folder.0.display())?;
    let config = folder.config()?;
    telemetry::init(&config.log)?;
    let secret_file = config.storage.signing_secret_file();

    let too_long = |_| {
        CliError::Check(format!(
            "not done within {} s; the last line above is how far it came",
            limit.as_secs()
        ))
    };
    let running = timeout(limit, app::start(config, Clock::system())).await.map_err(too_long)??;
    let story = tell(running.base_url(), args.image, &folder, &secret_file, limit);
    let told = timeout(limit.saturating_sub(stopwatch.elapsed()), Box::pin(story)).await.map_err(too_long);
    // Whatever came of it, the service ends in good order.
    running.shutdown().await;

    print_artifacts(&told??)?;
    output::text(&format!(
        "\nEverything held: the job is completed, its callback is signed, and every artifact opens ({:.1} s).",
        stopwatch.elapsed().as_secs_f64()
    ))
}

/// From the picture to the artifacts.
async fn tell(
    service: &str,
    image: Option<PathBuf>,
    folder: &Folder,
    secret_file: &Path,
    limit: Duration,
) -> Result<Vec<Saved>, CliError> {
    say("service", service)?;
    let secret = Some(secret::from_file(secret_file)?);
    let policy = Policy { secret, forward: None, script: None, clock: Clock::system() };
    let (receiver, mut callbacks) = Receiver::start(([127, 0, 0, 1], 0).into(), policy)
        .await
        .map_err(|source| CliError::io("the receiver cannot listen", source))?;
    say("receiver", receiver.url())?;

    let api = Api::new(&Target::open(service))?;
    let file = match image {
        Some(file) => file,
        None => folder.paint()?,
    };
    say("picture", file.display())?;
    let fields = vec![("callback_url", receiver.url())];
    let mut job = Submission { file, fields, ..Submission::default() }.send(&api).await?;
    say("job", &job.body.id)?;
    watch::follow(&api, &mut job, limit, Progress::on_stderr()).await?;
    say("status", &job.body.status)?;

    let callback = next(&mut callbacks).await?;
    check(&callback, &job.body)?;
    let attempt = callback.attempt.as_deref().unwrap_or("1");
    say("callback", format!("{}, signature verified, attempt {attempt}", EventKind::JobCompleted.as_str()))?;
    receiver.stop().await;
    artifacts::save_all(&api, &job.body, &folder.artifacts()?).await
}

async fn next(callbacks: &mut mpsc::Receiver<Callback>) -> Result<Callback, CliError> {
    callbacks.recv().await.ok_or_else(|| CliError::Check("the receiver stopped".to_owned()))
}

/// The callback must be signed, and tell that this job is completed.
fn check(callback: &Callback, job: &Job) -> Result<(), CliError> {
    if callback.verdict != Verdict::Verified {
        return Err(CliError::Check(format!("the callback is {}", callback.verdict)));
    }
    let data = |name| callback.event.pointer(name).and_then(serde_json::Value::as_str);
    let told = [callback.event_type(), callback.job_id(), data("/data/id"), data("/data/status")];
    let completed = EventKind::JobCompleted.as_str();
    let expected = [Some(completed), Some(&*job.id), Some(&*job.id), Some("completed")];
    if told != expected {
        return Err(CliError::Check(format!("the callback tells {told:?} instead of {expected:?}")));
    }
    Ok(())
}

fn print_artifacts(saved: &[Saved]) -> Result<(), CliError> {
    let rows = saved.iter().map(|Saved { artifact, path }| {
        let size = render::size(artifact.width, artifact.height);
        [artifact.name.clone(), size, HumanBytes(artifact.bytes).to_string(), path.display().to_string()]
    });
    output::text(&format!("\n{}", table::table(["ARTIFACT", "SIZE", "BYTES", "FILE"], rows)))
}

fn say(what: &str, value: impl std::fmt::Display) -> Result<(), CliError> {
    output::line(&format!("{what:<8}  {value}"))
}

/// Where the demo keeps what it makes.
struct Folder(PathBuf);

impl Folder {
    fn create(keep: Option<PathBuf>) -> Result<Self, CliError> {
        let created = match keep {
            Some(folder) => create(&folder, true).and_then(|()| std::path::absolute(folder)),
            // A name that nobody can guess, and no folder that exists: others write there too.
            None => {
                let name = format!("darkroom-demo-{:016x}", u64::from_ne_bytes(entropy()));
                let folder = std::env::temp_dir().join(name);
                create(&folder, false).map(|()| folder)
            }
        };
        created.map(Self).map_err(|source| CliError::io("the demo's folder cannot be created", source))
    }

    /// A service of its own: nothing of the environment, any free port, and only what goes wrong in its log.
    fn config(&self) -> Result<Config, CliError> {
        let data = self.0.join("data");
        let text = |path: &Path| path.to_str().map(str::to_owned);
        let data_dir = text(&data)
            .ok_or_else(|| CliError::Usage(format!("{} is not valid UTF-8; use --keep", data.display())))?;
        let flags = vec![
            ("server.listen", "127.0.0.1:0".to_owned()),
            ("storage.data_dir", data_dir),
            ("log.filter", "warn".to_owned()),
        ];
        Ok(Config::load(Sources { dev: true, flags, ..Sources::default() })?)
    }

    fn paint(&self) -> Result<PathBuf, CliError> {
        let file = self.0.join("picture.jpg");
        let bytes = picture::jpeg()
            .map_err(|error| CliError::Check(format!("the built-in picture cannot be encoded: {error}")))?;
        std::fs::write(&file, bytes)
            .map_err(|source| CliError::io(format!("cannot write {}", file.display()), source))?;
        Ok(file)
    }

    fn artifacts(&self) -> Result<PathBuf, CliError> {
        let folder = self.0.join("artifacts");
        create(&folder, true)
            .map_err(|source| CliError::io(format!("cannot create {}", folder.display()), source))?;
        Ok(folder)
    }
}

/// A folder for its owner's eyes: a signing secret and pictures are in it.
fn create(folder: &Path, may_exist: bool) -> std::io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(may_exist);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn callback(verdict: Verdict, event: Value) -> Callback {
        Callback {
            received_at: Timestamp::UNIX_EPOCH,
            id: None,
            attempt: None,
            verdict,
            seen: Some(1),
            status: None,
            step: None,
            forwarded: None,
            event,
        }
    }

    fn event(kind: &str, job: &str) -> Value {
        json!({"type": kind, "subject": job, "data": {"id": job, "status": "completed"}})
    }

    #[test]
    fn only_a_verified_callback_about_this_job_will_do() {
        let job = Job { id: "job_1".to_owned(), ..Job::default() };
        let fine = event("job.completed", "job_1");
        assert!(check(&callback(Verdict::Verified, fine.clone()), &job).is_ok());
        for bad in [
            callback(Verdict::Unchecked, fine),
            callback(Verdict::Verified, event("job.failed", "job_1")),
            callback(Verdict::Verified, event("job.completed", "job_2")),
            callback(Verdict::Verified, Value::Null),
        ] {
            assert!(check(&bad, &job).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_service_of_the_demo_is_private() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::create(Some(parent.path().join("demo"))).unwrap();
        let config = folder.config().unwrap();
        assert!(config.server.listen.ip().is_loopback());
        assert!(config.storage.data_dir.starts_with(parent.path()));
        assert!(folder.paint().unwrap().is_file());
    }
}
