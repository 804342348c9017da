//! What the tests share: a running service, a receiver of callbacks, and small pictures.

use std::path::{Path, PathBuf};
use std::time::Duration;

use darkroom::app::{self, Running};
use darkroom::clock::Clock;
use darkroom::config::{Config, Sources};
use darkroom::domain::client::ClientId;
use darkroom::domain::dispatch::DispatchPolicy;
use darkroom::domain::id::JobId;
use darkroom::domain::image::{Format, Handling, Variant};
use darkroom::domain::job::{Input, NewJob, Priority};
use darkroom::store::Policy;
use darkroom::store::sled::Options;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub mod access;
pub mod imaging;
pub mod origin;
pub mod picture;
pub mod process;
pub mod raw;
pub mod receiver;

/// No wait in a test is longer: far beyond what any of them takes, also on a busy machine.
pub const BOUND: Duration = Duration::from_secs(120);

/// A running service.
pub struct App {
    pub running: Running,
    pub http: Client,
    pub folder: TempDir,
}

/// Flags for the configuration: a key and its value.
pub type Flags<'a> = &'a [(&'static str, &'a str)];

pub fn config(folder: &Path, flags: Flags<'_>) -> Config {
    config_of(folder, flags, None)
}

fn config_of(folder: &Path, flags: Flags<'_>, file: Option<PathBuf>) -> Config {
    let fixed =
        [("server.listen", "127.0.0.1:0".to_owned()), ("storage.data_dir", folder.display().to_string())];
    // Lists are read from the environment alone.
    let (lists, flags): (Vec<_>, Vec<_>) =
        flags.iter().partition(|(key, _)| key.ends_with("_hosts") || key.ends_with("_origins"));
    let variable = |key: &str| format!("DARKROOM_{}", key.to_uppercase().replace('.', "__"));
    let environment = lists.iter().map(|(key, value)| (variable(key), (*value).to_owned())).collect();
    let flags = fixed.into_iter().chain(flags.iter().map(|(key, value)| (*key, (*value).to_owned())));
    let mut config = Config::load(Sources { dev: true, flags: flags.collect(), environment, file }).unwrap();
    // This program is a test.
    config.imaging.program = Some(env!("CARGO_BIN_EXE_darkroom").into());
    config
}

impl App {
    pub async fn start() -> Self {
        Self::with(&[], Clock::system()).await
    }

    pub async fn with(flags: Flags<'_>, clock: Clock) -> Self {
        Self::on(tempfile::tempdir().unwrap(), flags, clock).await
    }

    /// On a folder that may hold what another left.
    pub async fn on(folder: TempDir, flags: Flags<'_>, clock: Clock) -> Self {
        let config = config(folder.path(), flags);
        Self::of(config, folder, clock).await
    }

    /// With what a configuration file says.
    pub async fn start_with_file(file: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config_of(folder.path(), &[], Some(file.to_owned()));
        Self::of(config, folder, Clock::system()).await
    }

    async fn of(config: Config, folder: TempDir, clock: Clock) -> Self {
        let running = bounded(app::start(config, clock)).await.unwrap();
        Self { running, http: Client::builder().no_proxy().timeout(BOUND).build().unwrap(), folder }
    }

    /// With a client that uses each connection once. One that is kept may be closed by the server just when the
    /// client takes it up again, which happens when idle connections are closed early.
    pub async fn with_fresh_connections(flags: Flags<'_>) -> Self {
        let app = Self::with(flags, Clock::system()).await;
        let http = Client::builder().no_proxy().timeout(BOUND).pool_max_idle_per_host(0).build().unwrap();
        Self { http, ..app }
    }

    pub async fn stop(self) -> TempDir {
        bounded(self.running.shutdown()).await;
        self.folder
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running.base_url())
    }

    pub fn address(&self) -> String {
        self.running.base_url().trim_start_matches("http://").to_owned()
    }

    pub async fn get(&self, path: &str) -> Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    pub async fn get_json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "GET {path}");
        response.json().await.unwrap()
    }

    /// Submits a picture as multipart, with text fields.
    pub async fn submit(&self, picture: Vec<u8>, fields: &[(&str, &str)]) -> Response {
        self.http.post(self.url("/v1/jobs")).multipart(form(picture, fields)).send().await.unwrap()
    }

    /// Submits, and returns the accepted job.
    pub async fn accepted(&self, picture: Vec<u8>, fields: &[(&str, &str)]) -> Value {
        let response = self.submit(picture, fields).await;
        let (status, body) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until the job's JSON is as wanted.
    pub async fn job_when(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/v1/jobs/{id}");
        eventually(async || Some(self.get_json(&path).await).filter(|job| wanted(job))).await
    }

    pub async fn finished(&self, id: &str) -> Value {
        self.job_when(id, |job| !job["finished_at"].is_null()).await
    }

    /// The files under the folder of pictures, uploads included.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for folder in ["uploads", "blobs"] {
            collect(&self.folder.path().join(folder), &mut files);
        }
        files
    }

    pub fn signing_secret(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("signing-secret")).unwrap().trim().to_owned()
    }
}

fn collect(folder: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path.display().to_string());
        }
    }
}

/// A job for a store that no request brought.
pub fn new_job(id: JobId) -> NewJob {
    let input =
        Input { filename: None, format: Format::Jpeg, bytes: 1, width: 1, height: 1, sha256: [0; 32] };
    let (client, variants) = (ClientId::dev(), Variant::defaults());
    NewJob {
        id,
        client,
        input,
        variants,
        preset: None,
        handling: Handling::default(),
        callback: None,
        priority: Priority::Normal,
        start_at: None,
        deadline_ms: None,
        tags: Vec::new(),
        metadata: None,
    }
}

/// A small store that forgets nothing while a test runs.
pub fn store_options() -> Options {
    let day = Duration::from_secs(24 * 60 * 60);
    Options {
        cache_bytes: 16 << 20,
        policy: Policy {
            dispatch: DispatchPolicy::default(),
            source: String::new(),
            keep_finished: day,
            keep_deleted: day,
            keep_undelivered: day,
        },
    }
}

pub fn form(picture: Vec<u8>, fields: &[(&str, &str)]) -> Form {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    fields
        .fold(Form::new(), |form, (name, value)| form.text(name, value))
        .part("image", Part::bytes(picture).file_name("picture"))
}

pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer} in {value}"))
}

/// Sends the head of an upload: its type, and further header lines.
pub async fn announce(app: &App, media_type: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head =
        format!("POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// What comes first in answer.
pub async fn answer(stream: &mut TcpStream) -> String {
    let mut buffer = vec![0; 4096];
    let n = bounded(stream.read(&mut buffer)).await.unwrap();
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

/// The result, or a failed test when it takes too long.
pub async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("done within the bound")
}

/// Asks again and again until there is an answer, or the bound is reached.
pub async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    bounded(async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}
