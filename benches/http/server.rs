//! The service in a process of its own, as it is by default; and the yardstick, in one as well.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::TcpListener;
use warp::{Filter as _, Reply as _};

/// What makes this program the yardstick: the body's bytes follow.
pub(crate) const CONSTANT: &str = "--constant";
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn service(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder);
        command.env("RUST_LOG", "warn").envs(settings.iter().copied());
        Self::start(command)
    }

    pub(crate) fn constant(length: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([CONSTANT, &length.to_string()]);
        Self::start(command)
    }

    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit('/').next().unwrap().parse().unwrap();
        Self { child, address }
    }

    /// Submits the picture and waits for its job's end: the job's path.
    pub(crate) async fn finished_job(&self, picture: Vec<u8>) -> String {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = http.post(format!("http://{}/v1/jobs", self.address));
        let answer = request.header("content-type", "image/jpeg").header("prefer", "wait=60").body(picture);
        let job: Value = answer.timeout(2 * PATIENCE).send().await.unwrap().json().await.unwrap();
        assert_eq!(job["status"], "completed", "{job}");
        format!("/v1/jobs/{}", job["id"].as_str().unwrap())
    }

    pub(crate) async fn pause_work(&self) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = http.post(format!("http://{}/v1/queue/pause?what=work", self.address));
        let answer = request.timeout(PATIENCE).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A route of the same form, which answers with so many bytes of JSON, until it is killed.
pub(crate) async fn constant(length: usize) {
    let body: &'static str = Box::leak(format!("\"{}\"", "x".repeat(length - 2)).into_boxed_str());
    let route = warp::path!("v1" / "jobs" / String)
        .and(warp::get())
        .map(move |_: String| {
            warp::reply::with_header(body, "content-type", "application/json").into_response()
        })
        .boxed();
    let service = TowerToHyperService::new(warp::service(route));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening on http://{}", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let service = service.clone();
        tokio::spawn(async move {
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
