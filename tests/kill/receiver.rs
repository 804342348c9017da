//! The receiver of callbacks. It keeps what came, refuses some, and may end the server while one is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::below;
use crate::server::Process;

/// One in so many is refused when refusals are asked for.
const REFUSED: u64 = 8;

/// What happens when a callback comes in.
pub enum Trap {
    /// The file that arms the preloaded library is made.
    Arm(PathBuf),
    /// The server is killed, before it gets its answer.
    Kill(Process),
    /// The server is killed as its answer goes out.
    KillAfter(Process),
}

/// An event's `seq`, `type` and `subject`.
pub type Told = (u64, String, String);

#[derive(Default)]
struct State {
    /// By `webhook-id`: the body as it first came, and what it says.
    bodies: BTreeMap<String, (Bytes, Told)>,
    /// Answered with 200.
    taken: BTreeSet<String>,
    count: usize,
    refuses: bool,
    trap: Option<(u64, Trap)>,
    faults: Vec<String>,
}

#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let receiver = Self { url, state: Arc::default() };
        let answering = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let receiver = answering.clone();
                let answer = service_fn(move |request| receiver.clone().answer(request));
                let http1 = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http1.serve_connection(TokioIo::new(stream), answer));
            }
        });
        receiver
    }

    /// What happens at the nth callback from now on, and whether some are refused.
    pub fn set(&self, trap: Option<(u64, Trap)>, refuses: bool) {
        let mut state = self.lock();
        (state.trap, state.refuses) = (trap, refuses);
    }

    /// The ids of the events that were taken.
    pub fn taken(&self) -> BTreeSet<String> {
        self.lock().taken.clone()
    }

    /// Every event that came, by its id.
    pub fn told(&self) -> BTreeMap<String, Told> {
        self.lock().bodies.iter().map(|(id, (_, told))| (id.clone(), told.clone())).collect()
    }

    pub fn count(&self) -> usize {
        self.lock().count
    }

    pub fn take_faults(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().faults)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, hyper::Error> {
        let id = request.headers()["webhook-id"].to_str().unwrap().to_owned();
        // The server may be killed within it.
        let body = request.into_body().collect().await?.to_bytes();
        let mut response = Response::new(Empty::new());
        if !self.take(id, &body) {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        Ok(response)
    }

    /// Whether it is answered with 200.
    fn take(&self, id: String, body: &Bytes) -> bool {
        let mut state = self.lock();
        state.count += 1;
        let (known, _) = state.bodies.entry(id.clone()).or_insert_with(|| (body.clone(), read(body)));
        if known != body {
            state.faults.push(format!("{id} stands for two bodies"));
        }
        if let Some((nth, trap)) = state.trap.take() {
            match trap {
                trap if nth > 1 => state.trap = Some((nth - 1, trap)),
                Trap::Arm(file) => drop(File::create(file).unwrap()),
                Trap::Kill(process) => {
                    process.kill();
                    return false;
                }
                Trap::KillAfter(process) => drop(tokio::task::spawn_blocking(move || process.kill())),
            }
        } else if state.refuses && below(REFUSED) == 0 {
            return false;
        }
        state.taken.insert(id);
        true
    }
}

fn read(body: &Bytes) -> Told {
    let event: Value = serde_json::from_slice(body).unwrap();
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    (event["seq"].as_u64().unwrap(), text("type"), text("subject"))
}
