//! The command line: the real binary, as a user or a script runs it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use reqwest::Client;
use serde_json::Value;

use crate::support::{App, bounded, eventually, picture, text};

fn darkroom(args: &[&str], url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    command.args(args).env("DARKROOM_URL", url).env_remove("DARKROOM_TOKEN").env_remove("DARKROOM_SECRET");
    command
}

/// Runs a command to its end.
pub async fn run(args: &[&str], url: &str) -> Output {
    let mut command = darkroom(args, url);
    bounded(tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// A `darkroom serve`; killed at the end whatever happens.
struct Serve {
    child: Child,
    url: String,
}

impl Serve {
    fn start(folder: &Path) -> Self {
        let folder = folder.display().to_string();
        let mut command = darkroom(&["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", &folder], "");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url =
            line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("said {line:?}")).to_owned();
        Self { child, url }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_demo_holds_and_its_artifacts_open() {
    let keep = tempfile::tempdir().unwrap();
    let folder = keep.path().join("demo").display().to_string();
    let output = run(&["demo", "--keep", &folder], "").await;
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("signature verified"), "{}", stdout(&output));
    let thumbnail = keep.path().join("demo/artifacts/thumbnail.jpg");
    assert_eq!(picture::decode(&std::fs::read(thumbnail).unwrap()).width(), 200);

    let text = write(keep.path(), "notes.txt", b"no picture");
    assert_eq!(run(&["demo", &text], "").await.status.code(), Some(1));
}

#[tokio::test]
async fn submit_follows_a_job_to_its_end() {
    let app = App::start().await;
    let url = app.running.base_url();
    let cat = write(app.folder.path(), "cat.jpg", &picture::jpeg(400, 300));
    let output = run(&["submit", &cat, "--tag", "a", "--wait"], url).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let output = run(&["submit", &cat, "--wait", "--json"], url).await;
    let job: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((text(&job, "/status"), text(&job, "/input/filename")), ("completed", "cat.jpg"));

    let id = text(&job, "/id");
    let shown: Value =
        serde_json::from_str(&stdout(&run(&["jobs", "get", id, "--json"], url).await)).unwrap();
    assert_eq!(shown, job);
    let watched = run(&["jobs", "watch", id], url).await;
    assert!(watched.status.success() && stdout(&watched).contains("completed"), "{}", stdout(&watched));
    let table = stdout(&run(&["jobs", "list", "--status", "completed"], url).await);
    assert!(table.contains(id) && table.contains("cat.jpg"), "{table}");
    app.stop().await;
}

#[tokio::test]
async fn exit_codes_say_what_went_wrong() {
    let app = App::start().await;
    let url = app.running.base_url();
    let no_job = format!("job_{}", "0".repeat(32));
    let notes = write(app.folder.path(), "notes.txt", b"no picture");
    let gone = "http://127.0.0.1:1";
    let mut filter = darkroom(&["serve", "--dev"], "");
    filter.env("DARKROOM_LOG__FILTER", "=,=").current_dir(app.folder.path());
    let output = bounded(tokio::task::spawn_blocking(move || filter.output().unwrap())).await.unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    for (args, url, code) in [
        (vec!["jobs", "get", &no_job], url, 3),
        (vec!["submit", &notes], url, 1),
        (vec!["submit", "no-such-file.jpg"], url, 2),
        (vec!["import", "no-such-file.tar"], url, 2),
        (vec!["listen", "--secret-file", "no-such-file"], url, 2),
        // What the service says of the same kind of mistake.
        (vec!["submit", &notes, "--priority", "soon"], url, 2),
        (vec!["submit", &notes, "--idempotency-key", "a b"], url, 2),
        (vec!["jobs", "list", "--limit", "0"], url, 2),
        (vec!["deliveries", "list", "--since", "24h"], url, 2),
        (vec!["replays", "start", "--all", "--rate", "0"], url, 2),
        (vec!["secrets", "rotate", "--overlap", "169h"], url, 2),
        (vec!["jobs", "list"], gone, 1),
        (vec!["jobs", "lst"], url, 2),
        (vec!["jobs", "list", "--status", "bogus"], gone, 2),
        (vec!["serve"], url, 2),
        (vec!["serve", "--dev", "--listen", "0.0.0.0:0"], url, 2),
        (vec!["serve", "--dev", "--config", "no-such-file.toml"], url, 2),
    ] {
        let output = run(&args, url).await;
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty(), "{args:?} says why");
    }
    app.stop().await;
}

#[tokio::test]
async fn listen_verifies_what_the_service_sends() {
    let app = App::start().await;
    let secret = app.folder.path().join("signing-secret").display().to_string();
    let args = ["listen", "--listen", "127.0.0.1:0", "--secret-file", &secret, "--count", "1"];
    let mut child = darkroom(&args, "").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let receiver = first.strip_prefix("listening on ").unwrap();
    app.accepted(picture::jpeg(40, 30), &[("callback_url", receiver)]).await;
    let line = bounded(tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap())).await.unwrap();
    assert!(line.contains("job.completed") && line.contains("verified"), "{line}");
    let status = bounded(tokio::task::spawn_blocking(move || child.wait().unwrap())).await.unwrap();
    assert_eq!(status.code(), Some(0));
    app.stop().await;
}

#[tokio::test]
async fn sigterm_drains_and_the_next_start_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let http = Client::builder().no_proxy().build().unwrap();
    let mut serve = Serve::start(folder.path());
    let mut ids = Vec::new();
    for _ in 0..8 {
        let request = http.post(format!("{}/v1/jobs", serve.url)).header("content-type", "image/jpeg");
        let job: Value = request.body(picture::jpeg(1200, 900)).send().await.unwrap().json().await.unwrap();
        ids.push(text(&job, "/id").to_owned());
    }
    serve.signal("-TERM");
    let ended = eventually(async || serve.child.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(0));

    let serve = Serve::start(folder.path());
    for id in &ids {
        let url = format!("{}/v1/jobs/{id}", serve.url);
        let status = eventually(async || {
            let job: Value = http.get(&url).send().await.unwrap().json().await.unwrap();
            (!job["finished_at"].is_null()).then(|| text(&job, "/status").to_owned())
        })
        .await;
        assert_eq!(status, "completed");
    }
}

#[tokio::test]
async fn jobs_are_acted_on_and_the_queue_is_paused() {
    let app = App::start().await;
    let url = app.running.base_url().to_owned();
    let paused = run(&["queue", "pause", "work"], &url).await;
    assert_eq!(
        stdout(&paused),
        "waiting   0 of 10000\nto fetch  0 of 10000\nintake    on\nwork      paused\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.jpg", &picture::jpeg(30, 20));
    let submitted = run(&["submit", &file, "--tag", "red", "--priority", "high", "--json"], &url).await;
    let job: Value = serde_json::from_str(&stdout(&submitted)).unwrap();
    let id = text(&job, "/id");
    assert_eq!(text(&job, "/priority"), "high");

    assert_eq!(stdout(&run(&["jobs", "cancel", id], &url).await), format!("{id}  cancelled\n"));
    let again = run(&["jobs", "cancel", id], &url).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("is cancelled: there is nothing to cancel"), "{}", stderr(&again));
    let deleted = stdout(&run(&["jobs", "delete", id], &url).await);
    assert!(deleted.contains("can be restored until"), "{deleted}");
    assert_eq!(stdout(&run(&["jobs", "list", "--tag", "red"], &url).await), "");
    let all = stdout(&run(&["jobs", "list", "--tag", "red", "--include-deleted"], &url).await);
    assert!(all.contains(id), "{all}");
    assert_eq!(stdout(&run(&["jobs", "restore", id], &url).await), format!("{id}  cancelled\n"));
    // Those that do not allow it are named, and the others done all the same.
    let mixed = run(&["jobs", "retry", "job_nothing", id, id], &url).await;
    assert_eq!((stdout(&mixed), mixed.status.code()), (format!("{id}  queued\n"), Some(1)));
    let refusals = stderr(&mixed);
    assert!(refusals.contains("job_nothing") && refusals.contains("is queued"), "{refusals}");
    assert_eq!(run(&["queue", "resume"], &url).await.status.code(), Some(0));
    assert_eq!(run(&["jobs", "watch", id], &url).await.status.code(), Some(0));
    assert_eq!(run(&["jobs", "retry", "job_nothing"], &url).await.status.code(), Some(3));
    app.stop().await;
}
