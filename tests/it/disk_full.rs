//! A full disk: what is new is refused, what was accepted goes on, and all resumes by itself when there is room.
//!
//! The server is the real binary, on a disk of 160 MiB of its own, its log on it too. Somebody else's file takes
//! what is left of that disk to the last byte, and whatever becomes free as soon as it does.
//!
//! It needs root on Linux, util-linux, and loop devices and e2fsprogs for ext4.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use darkroom::clock::{Clock, Stopwatch};
use darkroom::domain::delivery::DeliveryState;
use darkroom::domain::job::JobStatus;
use darkroom::store::Store as _;
use darkroom::store::sled::SledStore;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use self::disk::{Disk, Filler, Kind, Pace};
use crate::support::process::Server;
use crate::support::receiver::Receiver;
use crate::support::{BOUND, bounded, eventually, form, picture, store_options, text};

mod disk;
#[path = "../power_cut/system.rs"]
mod system;

/// The store's log.
const LOG: &str = "data/store/db";
/// Jobs that have ended before the disk is full.
const ENDED: usize = 6;
/// Jobs that wait when it is.
const WAITING: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_outlasts_an_ext4_that_is_full_at_once() {
    outlast(Kind::Ext4, Pace::AtOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_outlasts_an_ext4_that_fills_slowly() {
    outlast(Kind::Ext4, Pace::Slowly).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_outlasts_a_tmpfs_that_is_full_at_once() {
    outlast(Kind::Tmpfs, Pace::AtOnce).await;
}

async fn outlast(kind: Kind, pace: Pace) {
    let disk = match Disk::new(kind) {
        Ok(disk) => disk,
        Err(unable) => return unable.skip(&format!("full disk ({kind:?})")),
    };
    let mut story = Story::begin(disk).await;
    let ended = story.end_some().await;
    story.run_one().await;
    let waiting = story.let_some_wait().await;
    let in_flight = story.tell_one_that_does_not_answer().await;

    let stopwatch = Stopwatch::start();
    let uploads = story.keep_uploading();
    let mut filler = Filler::start(&story.disk, pace);
    eventually(async || filler.has_all().then_some(())).await;
    story.is_refused().await;
    uploads.stop(&mut story.accepted).await;
    story.say(&format!("{kind:?} filled {pace:?}, after {:?}", stopwatch.elapsed()));
    story.goes_on(&ended, &waiting, in_flight).await;
    story.say("settled, cancelled, deleted and purged");

    story.kill();
    // What is set aside goes to the start, which others must not take away meanwhile.
    filler.rest();
    story.start();
    filler.go_on();
    eventually(async || filler.has_all().then_some(())).await;
    story.is_refused().await;
    story.reads(&ended[2]).await;
    story.post(&format!("/v1/jobs/{}/cancel", waiting[1])).await;
    story.cancelled.insert(waiting[1].clone());
    story.say("killed, and started again");

    let stopwatch = Stopwatch::start();
    drop(filler);
    let id = eventually(async || story.submit().await).await;
    story.accepted.insert(id);
    story.job_when(&waiting[2], |job| job["status"] == "completed").await;
    story.say(&format!("taken in and worked on again {:?} after there was room", stopwatch.elapsed()));
    story.has_done_all(&BTreeSet::new()).await;
    story.say(&format!("all done, {:?} after there was room", stopwatch.elapsed()));
    story.has_lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_room_every_change_waits_for_some() {
    do_without(Kind::Ext4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_room_every_change_waits_for_some_where_none_can_be_set_aside() {
    do_without(Kind::Ext4WithoutExtents).await;
}

async fn do_without(kind: Kind) {
    let disk = match Disk::new(kind) {
        Ok(disk) => disk,
        Err(unable) => return unable.skip(&format!("full disk ({kind:?}, no room at all)")),
    };
    let mut story = Story::begin(disk).await;
    let ended = story.end_some().await;
    let in_flight = story.tell_one_that_does_not_answer().await;
    let cut_off = story.run_one().await;
    let waiting = story.let_some_wait().await;
    story.kill();

    // As if the store had been copied here: nothing is set aside, and what there is goes to the start.
    let log = File::options().write(true).open(story.disk.outside(LOG)).unwrap();
    log.set_len(log.metadata().unwrap().len()).unwrap();
    let filler = Filler::leaving(&story.disk, 12 * 1024 * 1024);
    story.start();
    story.say(&format!("{kind:?}, started without room"));
    story.reads(&ended[0]).await;
    assert!(story.submit().await.is_none());
    let resume = "/v1/queue/resume";
    let cancel = format!("/v1/jobs/{}/cancel", waiting[0]);
    let delete = format!("/v1/jobs/{}", ended[0]);
    for (method, path) in [(Method::POST, resume), (Method::POST, &cancel), (Method::DELETE, &delete)] {
        assert_refused(story.call(method, path).await).await;
    }

    drop(filler);
    eventually(async || (story.call(Method::POST, resume).await.status() == StatusCode::OK).then_some(()))
        .await;
    // No lease ends within this test: what the killed process held is freed by the one that follows.
    answer(receive(&in_flight.listener).await).await;
    story.is_told(&in_flight.id).await;
    story.has_done_all(&BTreeSet::from([cut_off])).await;
    story.has_lost_nothing().await;
}

/// A server on a small disk, and what it has promised.
struct Story {
    disk: Disk,
    server: Option<Server>,
    http: Client,
    receiver: Receiver,
    accepted: BTreeSet<String>,
    cancelled: BTreeSet<String>,
    deleted: BTreeSet<String>,
    /// Whose callback goes to another receiver.
    told_elsewhere: BTreeSet<String>,
}

impl Story {
    async fn begin(disk: Disk) -> Self {
        let server = Some(serve(&disk));
        let http = Client::builder().no_proxy().timeout(BOUND).build().unwrap();
        let receiver = Receiver::start(&[]).await;
        let [accepted, cancelled, deleted, told_elsewhere] = [const { BTreeSet::new() }; 4];
        Self { disk, server, http, receiver, accepted, cancelled, deleted, told_elsewhere }
    }

    fn say(&self, what: &str) {
        let [free, set_aside] = [self.disk.free(), self.disk.set_aside(LOG)].map(|bytes| bytes / 1024);
        system::say(&format!("full disk: {what}; {free} KiB free, {set_aside} KiB set aside"));
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.as_ref().unwrap().url)
    }

    async fn call(&self, method: Method, path: &str) -> Response {
        self.http.request(method, self.url(path)).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.call(Method::GET, path).await;
        assert_eq!(response.status(), StatusCode::OK, "GET {path}");
        response.json().await.unwrap()
    }

    async fn post(&self, path: &str) {
        let response = self.call(Method::POST, path).await;
        assert!(response.status().is_success(), "POST {path}: {}", response.text().await.unwrap());
    }

    async fn accept(&mut self, callback_url: &str) -> String {
        let form = form(picture::jpeg(120, 90), &[("callback_url", callback_url)]);
        let response = self.http.post(self.url("/v1/jobs")).multipart(form).send().await.unwrap();
        let (status, job) = (response.status(), response.json::<Value>().await.unwrap());
        assert_eq!(status, StatusCode::ACCEPTED, "{job}");
        let id = text(&job, "/id").to_owned();
        self.accepted.insert(id.clone());
        id
    }

    async fn accept_some(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let url = self.receiver.url.clone();
            ids.push(self.accept(&url).await);
        }
        ids
    }

    async fn end_some(&mut self) -> Vec<String> {
        let ids = self.accept_some(ENDED).await;
        for id in &ids {
            self.is_told(id).await;
        }
        ids
    }

    /// A job that takes its time, and is being worked on.
    async fn run_one(&mut self) -> String {
        let url = format!("{}?callback_url={}", self.url("/v1/jobs"), self.receiver.url);
        let request = self.http.post(url).header("content-type", "image/jpeg");
        let response = request.body(picture::jpeg(3000, 2000)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let id = text(&response.json().await.unwrap(), "/id").to_owned();
        self.job_when(&id, |job| job["status"] == "processing").await;
        self.accepted.insert(id.clone());
        id
    }

    async fn let_some_wait(&mut self) -> Vec<String> {
        self.post("/v1/queue/pause?what=work").await;
        self.accept_some(WAITING).await
    }

    /// A job whose callback is under way until the answer is given.
    async fn tell_one_that_does_not_answer(&mut self) -> InFlight {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let id = self.accept(&url).await;
        self.told_elsewhere.insert(id.clone());
        self.post(&format!("/v1/jobs/{id}/cancel")).await;
        self.cancelled.insert(id.clone());
        let callback = receive(&listener).await;
        InFlight { id, listener, callback }
    }

    async fn is_told(&self, id: &str) {
        self.job_when(id, |job| job["callback"]["status"] == "delivered").await;
    }

    async fn job_when(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(async || Some(self.get(&format!("/v1/jobs/{id}")).await).filter(|job| wanted(job))).await
    }

    /// Uploads pictures of 2 MiB one after another, until it is told to stop.
    fn keep_uploading(&self) -> Uploads {
        let (http, url) = (self.http.clone(), self.url("/v1/jobs"));
        let url = format!("{url}?callback_url={}", self.receiver.url);
        let is_over = Arc::<AtomicBool>::default();
        let over = Arc::clone(&is_over);
        let task = tokio::spawn(async move {
            let picture = bytes::Bytes::from(large(&picture::jpeg(120, 90)));
            let mut accepted = Vec::new();
            while !over.load(Ordering::Acquire) {
                let request = http.post(&url).header("content-type", "image/jpeg").body(picture.clone());
                let response = request.send().await.unwrap();
                match response.status() {
                    StatusCode::ACCEPTED => {
                        accepted.push(text(&response.json().await.unwrap(), "/id").to_owned());
                    }
                    _ => assert_refused(response).await,
                }
            }
            accepted
        });
        Uploads { is_over, task }
    }

    /// Submits a small picture; `None` when that is refused for want of room.
    async fn submit(&self) -> Option<String> {
        let url = format!("{}?callback_url={}", self.url("/v1/jobs"), self.receiver.url);
        let request = self.http.post(url).header("content-type", "image/jpeg").body(picture::jpeg(20, 20));
        let response = request.send().await.unwrap();
        if response.status() == StatusCode::ACCEPTED {
            return Some(text(&response.json().await.unwrap(), "/id").to_owned());
        }
        assert_refused(response).await;
        None
    }

    async fn is_refused(&mut self) {
        let mut accepted = Vec::new();
        eventually(async || {
            let id = self.submit().await;
            let is_refused = id.is_none();
            accepted.extend(id);
            is_refused.then_some(())
        })
        .await;
        self.accepted.extend(accepted);
    }

    async fn goes_on(&mut self, ended: &[String], waiting: &[String], in_flight: InFlight) {
        self.reads(&ended[0]).await;
        self.keeps_only_what_was_accepted().await;

        // The attempt that was under way is recorded.
        answer(in_flight.callback).await;
        self.is_told(&in_flight.id).await;

        // A job that waits is called off, and that is told.
        let id = &waiting[0];
        self.post(&format!("/v1/jobs/{id}/cancel")).await;
        self.is_told(id).await;
        self.cancelled.insert(id.clone());

        // One that has ended is deleted, and purged with its pictures.
        let id = &ended[1];
        let response = self.call(Method::DELETE, &format!("/v1/jobs/{id}")).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        eventually(async || {
            let gone =
                self.call(Method::GET, &format!("/v1/jobs/{id}")).await.status() == StatusCode::NOT_FOUND;
            (gone && !blobs(&self.disk.outside("data")).iter().any(|(job, _)| job == id)).then_some(())
        })
        .await;
        self.deleted.insert(id.clone());

        // Work that nobody holds back has no room for its results; that is no fault of the jobs.
        self.post("/v1/queue/resume").await;
        eventually(async || self.ids("status=processing").await.is_empty().then_some(())).await;
        assert_eq!(self.ids("status=failed").await, Vec::<String>::new());
    }

    async fn ids(&self, query: &str) -> Vec<String> {
        let list = self.get(&format!("/v1/jobs?limit=200&{query}")).await;
        list["items"].as_array().unwrap().iter().map(|job| text(job, "/id").to_owned()).collect()
    }

    async fn reads(&self, id: &str) {
        assert_eq!(self.get("/health/live").await["status"], "live");
        assert_eq!(self.get("/health/ready").await["status"], "ready");
        let job = self.get(&format!("/v1/jobs/{id}")).await;
        assert_eq!(job["status"], "completed");
        for artifact in job["artifacts"].as_array().unwrap() {
            let path = format!("/v1/jobs/{id}/artifacts/{}", text(artifact, "/name"));
            let response = self.call(Method::GET, &path).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.bytes().await.unwrap().len() as u64, artifact["bytes"].as_u64().unwrap());
        }
        for list in ["/v1/jobs", "/v1/events", &format!("/v1/jobs/{id}/deliveries")] {
            assert!(!self.get(list).await["items"].as_array().unwrap().is_empty(), "{list}");
        }
    }

    /// No upload is left, and no picture without a job.
    async fn keeps_only_what_was_accepted(&self) {
        let data = self.disk.outside("data");
        eventually(async || std::fs::read_dir(data.join("uploads")).unwrap().next().is_none().then_some(()))
            .await;
        for (job, name) in blobs(&data) {
            let status = self.call(Method::GET, &format!("/v1/jobs/{job}")).await.status();
            assert_eq!(status, StatusCode::OK, "{name} of {job} was left");
        }
    }

    fn kill(&mut self) {
        self.server.take().unwrap().kill();
    }

    fn start(&mut self) {
        self.server = Some(serve(&self.disk));
    }

    /// All that was accepted is done and told. Only those that were `cut_off` needed another try.
    async fn has_done_all(&self, cut_off: &BTreeSet<String>) {
        for id in self.accepted.difference(&self.deleted) {
            let job = self.job_when(id, |job| !job["finished_at"].is_null()).await;
            let is_cancelled = self.cancelled.contains(id);
            assert_eq!(job["status"], if is_cancelled { "cancelled" } else { "completed" }, "{job}");
            let tries = 1 + u64::from(cut_off.contains(id));
            assert!(is_cancelled || job["attempt"] == tries, "{job}");
        }
        let told =
            || self.receiver.all().iter().map(|told| text(&told.json(), "/subject").to_owned()).collect();
        let untold: BTreeSet<_> = self.accepted.difference(&self.told_elsewhere).cloned().collect();
        eventually(async || untold.is_subset(&told()).then_some(())).await;
    }

    /// The books balance.
    async fn has_lost_nothing(mut self) {
        assert!(self.server.take().unwrap().stop().success());
        let log = std::fs::read_to_string(self.disk.outside("log")).unwrap();
        assert!(!log.contains("panicked"), "{log}");
        let (folder, now) = (self.disk.outside("data/store"), Clock::system().now());
        let store = tokio::task::spawn_blocking(move || SledStore::open(&folder, store_options(), now));
        let store = store.await.unwrap().unwrap();
        let audit = store.audit().await.unwrap();
        store.close().await;
        assert_eq!(audit.faults, Vec::<String>::new());
        let cancelled = self.cancelled.difference(&self.deleted).count() as u64;
        let all = self.accepted.difference(&self.deleted).count() as u64;
        let jobs =
            BTreeMap::from([(JobStatus::Completed, all - cancelled), (JobStatus::Cancelled, cancelled)]);
        assert_eq!(audit.jobs, jobs);
        let deliveries = audit.deliveries.into_iter().filter(|(_, count)| *count > 0);
        assert_eq!(deliveries.collect::<Vec<_>>(), [(DeliveryState::Delivered, all)]);
    }
}

/// A callback that is under way.
struct InFlight {
    id: String,
    listener: TcpListener,
    callback: TcpStream,
}

async fn receive(listener: &TcpListener) -> TcpStream {
    let (mut callback, _) = bounded(listener.accept()).await.unwrap();
    assert!(bounded(callback.read(&mut [0; 4096])).await.unwrap() > 0);
    callback
}

async fn answer(mut callback: TcpStream) {
    callback.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
}

/// What uploads while the disk fills.
struct Uploads {
    is_over: Arc<AtomicBool>,
    task: JoinHandle<Vec<String>>,
}

impl Uploads {
    async fn stop(self, accepted: &mut BTreeSet<String>) {
        self.is_over.store(true, Ordering::Release);
        accepted.extend(self.task.await.unwrap());
    }
}

fn serve(disk: &Disk) -> Server {
    let mut command = disk.command(env!("CARGO_BIN_EXE_darkroom"));
    let log = File::options().create(true).append(true).open(disk.outside("log")).unwrap();
    command.stderr(log).envs([
        ("DARKROOM_RETENTION__DELETED_MS", "1"),
        ("DARKROOM_RETENTION__INTERVAL_MS", "100"),
        ("DARKROOM_QUEUE__LEASE_MS", "3600000"),
        ("DARKROOM_CALLBACKS__TIMEOUT_MS", "3600000"),
    ]);
    Server::from(command, &disk.inside("data"))
}

async fn assert_refused(response: Response) {
    let (status, headers) = (response.status(), response.headers().clone());
    let base_url = response.url().origin().ascii_serialization();
    let mut problem: Value = response.json().await.unwrap();
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE, "{problem}");
    // Whatever was refused.
    problem["instance"] = "/v1/jobs".into();
    crate::problems::assert_golden(&base_url, status.as_u16(), &headers, &problem.to_string());
}

/// A JPEG with 2 MiB of comments, which cost nothing to process.
fn large(jpeg: &[u8]) -> Vec<u8> {
    let comment = [&b"\xff\xfe\xff\xff"[..], &[b' '; 65533]].concat();
    [&jpeg[..2], &comment.repeat(32), &jpeg[2..]].concat()
}

/// The pictures: whose, and their names.
fn blobs(data: &Path) -> Vec<(String, String)> {
    let shards = std::fs::read_dir(data.join("blobs")).unwrap();
    let files = shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap());
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names
        .map(|name| name.split_once('.').map(|(job, name)| (job.to_owned(), name.to_owned())).unwrap())
        .collect()
}
