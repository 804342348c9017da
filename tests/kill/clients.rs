//! The clients: what they ask for, and what they were told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use darkroom::clock::{Clock, entropy};
use darkroom::domain::id::JobId;
use darkroom::domain::job::{Job, JobStatus};
use image::{ImageFormat, RgbImage};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::below;

/// What a client pauses for at most between two requests.
const PAUSE_MS: u64 = 25;
/// Only the latest jobs are cancelled, deleted, restored and tried again.
const LATEST: usize = 25;

/// A job as a client wants it.
#[derive(Debug, Clone)]
pub struct Wish {
    picture: Vec<u8>,
    fields: Vec<(&'static str, String)>,
    key: Option<String>,
}

/// What clients know of a job from what was acknowledged to them.
#[derive(Debug, Clone)]
pub struct Known {
    sha256: [u8; 32],
    tags: Vec<String>,
    revision: u64,
    /// How it ended, unless somebody asked for another go since.
    ended: Option<JobStatus>,
    /// It was called off, so that it ends.
    called_off: bool,
    /// `None` while a request is under way, or was when the server was killed.
    deleted: Option<bool>,
    /// A request about it is under way.
    is_busy: bool,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub jobs: BTreeMap<JobId, Known>,
    /// Requests with an idempotency key that were not answered.
    to_repeat: Vec<Wish>,
    /// Requests with an idempotency key that were, and for which job.
    repeatable: Vec<(Wish, JobId)>,
    /// Acknowledgements of every kind.
    pub acknowledged: usize,
    /// Submissions of this round that were not answered.
    pub unanswered: usize,
    pub faults: Vec<String>,
}

pub struct Clients {
    pub http: Client,
    receiver: String,
    ledger: Mutex<Ledger>,
    pub is_over: AtomicBool,
}

impl Known {
    fn heard(&mut self, job: &Value) {
        self.revision = self.revision.max(job["revision"].as_u64().unwrap());
        let status = JobStatus::parse(job["status"].as_str().unwrap()).unwrap();
        self.ended = status.is_terminal().then_some(status);
        self.called_off |= !job["cancel_requested_at"].is_null();
    }

    /// What of it does not hold. Leases are freed by now, so that what was called off has ended.
    pub fn missing(&self, job: &Job) -> Option<String> {
        let holds = job.input.as_ref().is_some_and(|input| input.sha256 == self.sha256)
            && job.tags == self.tags
            && job.revision >= self.revision
            && self.ended.is_none_or(|status| job.status == status)
            && (!self.called_off || job.status.is_terminal())
            && self.deleted.is_none_or(|deleted| deleted == job.deleted_at.is_some());
        (!holds).then(|| format!("{self:?} was acknowledged, and it is {job:?}"))
    }
}

impl Clients {
    pub fn new(receiver: &str) -> Arc<Self> {
        let http = Client::builder().no_proxy().timeout(crate::BOUND).build().unwrap();
        let (receiver, ledger) = (receiver.to_owned(), Mutex::default());
        Arc::new(Self { http, receiver, ledger, is_over: AtomicBool::new(false) })
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new round: what was under way is not any more.
    pub fn begin(&self) {
        self.is_over.store(false, Ordering::Release);
        let mut ledger = self.ledger();
        ledger.unanswered = 0;
        ledger.jobs.values_mut().for_each(|known| known.is_busy = false);
    }

    /// Asks for this and that until the server is gone.
    pub async fn work(self: Arc<Self>, url: String) {
        while !self.is_over.load(Ordering::Acquire) {
            match below(10) {
                0..6 => self.submit(&url, self.wish()).await,
                6 => self.repeat(&url).await,
                _ => self.change(&url).await,
            }
            tokio::time::sleep(Duration::from_millis(below(PAUSE_MS))).await;
        }
    }

    /// One that takes a moment, and is called back.
    pub fn plain_wish(&self) -> Wish {
        let fields = vec![("callback_url", self.receiver.clone())];
        Wish { picture: picture(64 + below(64), 48), fields, key: None }
    }

    fn wish(&self) -> Wish {
        let mut wish = self.plain_wish();
        if below(8) == 0 {
            // Long enough to be called off while it is worked on.
            wish.picture = picture(900 + below(100), 700);
        }
        if below(4) == 0 {
            wish.fields.clear();
        } else if below(3) == 0 {
            let all = "queued,started,completed,failed,cancelled,deleted,restored";
            wish.fields.push(("callback_events", all.to_owned()));
        }
        let priority = ["high", "normal", "low"][usize::try_from(below(3)).unwrap()];
        wish.fields.push(("priority", priority.to_owned()));
        wish.fields.push(("tags", format!("kill,{:x}", below(16))));
        wish.fields.push(("metadata", format!("{{\"n\":\"{}\"}}", "m".repeat(below(2000) as usize))));
        if below(10) == 0 {
            wish.fields.push(("deadline_ms", "1000".to_owned()));
        }
        if below(10) == 0 {
            let later = Clock::system().now() + Duration::from_millis(below(500));
            wish.fields.push(("start_at", later.to_string()));
        }
        wish.key = (below(2) == 0).then(|| format!("{:032x}", u128::from_le_bytes(entropy())));
        wish
    }

    /// Submits, and notes what came of it.
    pub async fn submit(&self, url: &str, wish: Wish) {
        self.ledger().unanswered += 1;
        let mut url = Url::parse(&format!("{url}/v1/jobs")).unwrap();
        url.query_pairs_mut().extend_pairs(&wish.fields);
        let mut request = self.http.post(url).header("content-type", "image/jpeg").body(wish.picture.clone());
        if let Some(key) = &wish.key {
            request = request.header("idempotency-key", key);
        }
        let answer = answer(request.send().await).await;
        let mut ledger = self.ledger();
        match answer {
            Some((StatusCode::ACCEPTED, job)) => ledger.accepted(&wish, &job),
            // Another client repeats it at this moment.
            Some((StatusCode::CONFLICT, _)) if wish.key.is_some() => ledger.unanswered -= 1,
            Some((status, _)) if is_refusal(status) => ledger.unanswered -= 1,
            Some((status, problem)) => ledger.faults.push(format!("a job: {status} {problem}")),
            None if wish.key.is_some() => ledger.to_repeat.push(wish),
            None => {}
        }
    }

    /// Repeats a request that has an idempotency key: one that was not answered, or one that was.
    async fn repeat(&self, url: &str) {
        let wish = self.ledger().next_to_repeat();
        if let Some(wish) = wish {
            self.submit(url, wish).await;
        }
    }

    /// Cancels, tries again, deletes or restores a job.
    async fn change(&self, url: &str) {
        let Some(id) = self.ledger().take_one() else { return };
        let jobs = format!("{url}/v1/jobs/{id}");
        let is_retry = below(4) == 0;
        let (what, request) = match below(4) {
            _ if is_retry => ("retry", self.http.post(format!("{jobs}/retry"))),
            0 | 1 => ("cancel", self.http.post(format!("{jobs}/cancel"))),
            2 => ("delete", self.http.delete(jobs)),
            _ => ("restore", self.http.post(format!("{jobs}/restore"))),
        };
        let before = self.ledger().expect(id, what);
        let answer = answer(request.send().await).await;
        let mut ledger = self.ledger();
        match answer {
            Some((status, job)) if status.is_success() => ledger.changed(id, what, &job),
            // Not possible in its state, which it keeps.
            Some((status, _)) if status == StatusCode::CONFLICT || is_refusal(status) => {
                ledger.jobs.insert(id, before);
            }
            Some((status, problem)) => ledger.faults.push(format!("{what} {id}: {status} {problem}")),
            None => {}
        }
    }
}

impl Ledger {
    fn accepted(&mut self, wish: &Wish, job: &Value) {
        self.unanswered -= 1;
        self.acknowledged += 1;
        let id: JobId = job["id"].as_str().unwrap().parse().unwrap();
        if let Some(key) = &wish.key {
            let first = self.repeatable.iter().find(|(known, _)| known.key.as_ref() == Some(key));
            match first {
                Some((_, first)) if *first != id => {
                    self.faults.push(format!("the key of {first} is that of {id} too"));
                }
                Some(_) => return,
                None => self.repeatable.push((wish.clone(), id)),
            }
        }
        let tags = wish.fields.iter().filter(|(name, _)| *name == "tags");
        let mut known = Known {
            sha256: Sha256::digest(&wish.picture).into(),
            tags: tags.flat_map(|(_, tags)| tags.split(',').map(str::to_owned)).collect(),
            revision: 0,
            ended: None,
            called_off: false,
            deleted: Some(false),
            is_busy: false,
        };
        known.heard(job);
        self.jobs.insert(id, known);
    }

    fn next_to_repeat(&mut self) -> Option<Wish> {
        self.to_repeat.pop().or_else(|| pick(&self.repeatable).map(|(wish, _)| wish.clone()))
    }

    /// One of the latest jobs, for one client alone.
    fn take_one(&mut self) -> Option<JobId> {
        let latest = self.jobs.iter().rev().take(LATEST).filter(|(_, known)| !known.is_busy);
        let id = *pick(&latest.map(|(id, _)| id).collect::<Vec<_>>())?;
        let id = *id;
        self.jobs.get_mut(&id)?.is_busy = true;
        Some(id)
    }

    /// From the moment of the request on, what it may undo is not counted on. Returns what was known before.
    fn expect(&mut self, id: JobId, what: &str) -> Known {
        let known = self.jobs.get_mut(&id).unwrap();
        let before = Known { is_busy: false, ..known.clone() };
        match what {
            "retry" => (known.ended, known.called_off) = (None, false),
            "delete" | "restore" => known.deleted = None,
            _ => {}
        }
        before
    }

    fn changed(&mut self, id: JobId, what: &str, job: &Value) {
        self.acknowledged += 1;
        let known = self.jobs.get_mut(&id).unwrap();
        known.is_busy = false;
        match what {
            "delete" => (known.deleted, known.called_off) = (Some(true), true),
            "restore" => known.deleted = Some(false),
            _ => {}
        }
        // A deletion is answered with nothing.
        if !job.is_null() {
            known.heard(job);
        }
    }
}

/// A server that stops takes nothing in.
fn is_refusal(status: StatusCode) -> bool {
    status == StatusCode::SERVICE_UNAVAILABLE
}

/// The answer, if it came whole.
async fn answer(response: reqwest::Result<Response>) -> Option<(StatusCode, Value)> {
    let response = response.ok()?;
    let status = response.status();
    let body = response.bytes().await.ok()?;
    let json = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    Some((status, json))
}

fn pick<T>(from: &[T]) -> Option<&T> {
    if from.is_empty() { None } else { from.get(usize::try_from(below(from.len() as u64)).unwrap()) }
}

fn picture(width: u64, height: u32) -> Vec<u8> {
    let shift = below(256);
    let picture = RgbImage::from_fn(u32::try_from(width).unwrap(), height, |x, y| {
        let wave = (x * x + 3 * y * y) / 97 + u32::try_from(shift).unwrap();
        image::Rgb([x, y, wave].map(|value| (value % 256) as u8))
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}
