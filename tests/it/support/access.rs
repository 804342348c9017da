//! A service that asks for API keys, and those who call it.

use std::path::Path;
use std::process::{Command, Output};

use darkroom::app::{self, Running};
use darkroom::clock::Clock;
use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use super::{BOUND, Flags, bounded, config, eventually, form, text};

/// A running service with the clients `a` and `b` and the operator `ops`, made by the command line.
pub struct Guarded {
    pub running: Running,
    pub folder: TempDir,
    pub a: Caller,
    pub b: Caller,
    pub ops: Caller,
    pub nobody: Caller,
}

/// Who calls, with one key.
#[derive(Clone)]
pub struct Caller {
    http: Client,
    base: String,
    pub key: Option<String>,
}

impl Guarded {
    pub async fn start(flags: Flags<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| created(folder.path(), &[name]));
        let ops = created(folder.path(), &["ops", "--role", "operator"]);
        Self::on(folder, flags, [a, b, ops], Clock::system()).await
    }

    /// On a folder that has these keys of `a`, `b` and `ops`.
    pub async fn on(folder: TempDir, flags: Flags<'_>, keys: [String; 3], clock: Clock) -> Self {
        let mut config = config(folder.path(), flags);
        // With the callbacks to loopback that it allows, and without the rest of it.
        config.dev = false;
        let running = bounded(app::start(config, clock)).await.unwrap();
        let base = running.base_url().to_owned();
        let caller = |key| Caller { http: client(), base: base.clone(), key };
        let [a, b, ops] = keys.map(|key| caller(Some(key)));
        Self { a, b, ops, nobody: caller(None), running, folder }
    }

    /// Stops, and gives back what another start needs.
    pub async fn stop(self) -> (TempDir, [String; 3]) {
        bounded(self.running.shutdown()).await;
        (self.folder, [self.a, self.b, self.ops].map(|caller| caller.key.unwrap()))
    }
}

fn client() -> Client {
    Client::builder().no_proxy().timeout(BOUND).build().unwrap()
}

impl Caller {
    /// The same service, with another key.
    pub fn with(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.header(AUTHORIZATION, format!("Bearer {key}")),
            None => request,
        }
    }

    pub async fn send(&self, method: &str, path: &str) -> Response {
        self.request(method.parse().unwrap(), path).send().await.unwrap()
    }

    pub async fn status(&self, method: &str, path: &str) -> StatusCode {
        self.send(method, path).await.status()
    }

    pub async fn get(&self, path: &str) -> Value {
        let response = self.send("GET", path).await;
        assert_eq!(response.status(), StatusCode::OK, "GET {path}");
        response.json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path).json(body).send().await.unwrap()
    }

    pub async fn submit(&self, picture: Vec<u8>, fields: &[(&str, &str)]) -> Response {
        self.request(Method::POST, "/v1/jobs").multipart(form(picture, fields)).send().await.unwrap()
    }

    /// Submits, and returns the id of the accepted job.
    pub async fn accepted(&self, picture: Vec<u8>, fields: &[(&str, &str)]) -> String {
        let response = self.submit(picture, fields).await;
        let (status, body) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        text(&serde_json::from_str(&body).unwrap(), "/id").to_owned()
    }

    /// Waits until what is there is as wanted.
    pub async fn when(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(async || Some(self.get(path).await).filter(|it| wanted(it))).await
    }
}

/// `darkroom clients`, on a folder.
pub fn clients(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    command.arg("clients").args(args).arg("--data-dir").arg(folder);
    command.env_remove("DARKROOM_URL").env_remove("DARKROOM_TOKEN").output().unwrap()
}

/// The key of a new client.
pub fn created(folder: &Path, args: &[&str]) -> String {
    let output = clients(folder, &[&["create"], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
