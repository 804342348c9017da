//! The rounds: start, work, kill, audit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use darkroom::domain::id::JobId;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::books::Books;
use crate::clients::Clients;
use crate::points::{How, Load, Point, Since};
use crate::receiver::{Receiver, Trap};
use crate::server::{Server, Stage};
use crate::{BOUND, eventually};

const CLIENTS: usize = 4;
/// Servers that may stop faster than they are killed.
const TRIES: usize = 20;
const SIGKILL: i32 = 9;

/// What goes on from round to round.
pub struct Rounds {
    stage: Stage,
    clients: Arc<Clients>,
    receiver: Receiver,
    feed: Feed,
    /// What the books held after the last round.
    jobs: BTreeSet<JobId>,
    orphans: BTreeSet<JobId>,
    /// The points in the order of their first round, and how many each had.
    made: Vec<(&'static str, usize)>,
    _folder: TempDir,
}

/// What the event feed has told so far.
#[derive(Default)]
struct Feed {
    after: u64,
    open: BTreeSet<String>,
    /// Events that a callback asked for, each with its job.
    wanted: BTreeMap<String, String>,
}

impl Rounds {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let receiver = Receiver::start().await;
        Self {
            stage: Stage::new(folder.path()),
            clients: Clients::new(&receiver.url),
            receiver,
            feed: Feed::default(),
            jobs: BTreeSet::new(),
            orphans: BTreeSet::new(),
            made: Vec::new(),
            _folder: folder,
        }
    }

    pub fn made(&self) -> usize {
        self.made.iter().map(|(_, rounds)| rounds).sum()
    }

    /// One kill; where there is no library to kill at a system call, none that needs it.
    pub async fn make(&mut self, point: Point) {
        if matches!(point.how, How::At(..)) && self.stage.kill_at.is_none() {
            return;
        }
        for _ in 0..TRIES {
            if self.round(point).await {
                match self.made.iter_mut().find(|(name, _)| *name == point.name) {
                    Some((_, rounds)) => *rounds += 1,
                    None => self.made.push((point.name, 1)),
                }
                return;
            }
        }
        panic!("{point:?}: each of {TRIES} servers had stopped before");
    }

    /// Whether it was a kill: a server that is asked to stop may be faster.
    async fn round(&mut self, point: Point) -> bool {
        let _ = std::fs::remove_file(self.stage.armed());
        self.clients.begin();
        let status = tokio::time::timeout(BOUND, self.kill(point)).await.ok();
        // Also when it was not reached, as the books may say why.
        self.audit(point).await;
        let is_killed = status.is_some_and(|status| status.signal() == Some(SIGKILL));
        let may_stop = matches!(point.how, How::TermTime(_) | How::At(_, Since::Term));
        let has_stopped = may_stop && status.is_some_and(|status| status.success());
        assert!(is_killed || has_stopped, "{point:?}: not reached, {status:?}\n{}", self.stage.log());
        is_killed
    }

    /// Returns how the server ended.
    async fn kill(&mut self, point: Point) -> ExitStatus {
        let call = match point.how {
            How::At(call, since) => Some((call, since)),
            _ => None,
        };
        let waits = call.is_some_and(|(_, since)| since != Since::Start);
        let mut server = Server::start(&self.stage, call.map(|(call, _)| call), waits);
        if let How::StartTime(time) = point.how {
            tokio::time::sleep(time).await;
            server.process().kill();
        }
        if point.load == Load::None || matches!(point.how, How::StartTime(_)) {
            return server.ended().await;
        }
        let url = server.url().await.expect("it starts");
        if point.load == Load::One {
            self.receiver.set(None, false);
            self.come_to_rest(&url).await;
        }
        let trap = match point.how {
            How::At(_, Since::Callback) => Some((1, Trap::Arm(self.stage.armed()))),
            How::Callback(nth) => Some((nth, Trap::Kill(server.process()))),
            How::Answer(nth) => Some((nth, Trap::KillAfter(server.process()))),
            _ => None,
        };
        self.receiver.set(trap, point.load == Load::Many);
        if matches!(point.how, How::At(_, Since::Requests)) {
            drop(File::create(self.stage.armed()).unwrap());
        }
        let mut work = JoinSet::new();
        if point.load == Load::One {
            let clients = Arc::clone(&self.clients);
            work.spawn(async move { clients.submit(&url, clients.plain_wish()).await });
        } else {
            for _ in 0..CLIENTS {
                work.spawn(Arc::clone(&self.clients).work(url.clone()));
            }
        }
        match point.how {
            How::Time(time) => {
                tokio::time::sleep(time).await;
                server.process().kill();
            }
            How::TermTime(time) => {
                self.wait_for_work().await;
                server.terminate();
                tokio::time::sleep(time).await;
                server.process().kill();
            }
            How::At(_, Since::Term) => {
                self.wait_for_work().await;
                server.terminate();
                drop(File::create(self.stage.armed()).unwrap());
            }
            _ => {}
        }
        let status = server.ended().await;
        self.clients.is_over.store(true, Ordering::Release);
        while let Some(ended) = work.join_next().await {
            ended.unwrap();
        }
        status
    }

    /// Until there is something to be killed within.
    async fn wait_for_work(&self) {
        let enough = self.clients.ledger().acknowledged + 2 * CLIENTS;
        eventually(async || (self.clients.ledger().acknowledged >= enough).then_some(())).await;
    }

    async fn audit(&mut self, point: Point) {
        let books = Books::read(&self.stage.data()).await;
        let books = books.unwrap_or_else(|error| panic!("{point:?}: {error}"));
        let (lost, unanswered) = {
            let mut ledger = self.clients.ledger();
            let mut lost = books.lost(&ledger);
            lost.append(&mut ledger.faults);
            (lost, ledger.unanswered)
        };
        assert!(lost.is_empty(), "{point:?}: LOST {lost:#?}\n{}", self.stage.log());
        let faults = books.faults(&self.receiver);
        assert!(faults.is_empty(), "{point:?}: {faults:#?}\n{}", self.stage.log());
        if let Some(leaves) = point.leaves {
            assert_eq!(books.leaves(&self.jobs), leaves, "{point:?}\n{}", self.stage.log());
        }
        // What was submitted and not answered may be there, or have left its picture.
        let jobs: BTreeSet<_> = books.jobs.keys().copied().collect();
        let orphans = books.orphans();
        let unknown = |id: &&JobId| !self.clients.ledger().jobs.contains_key(*id);
        let unasked = jobs.difference(&self.jobs).filter(unknown).count();
        let stray = orphans.difference(&self.orphans).count();
        assert!(
            unasked + stray <= unanswered,
            "{point:?}: {unasked} jobs and {stray} pictures that nobody was told of, {unanswered} requests unanswered"
        );
        (self.jobs, self.orphans) = (jobs, orphans);
    }

    /// Lets everything come to its end, stops the server, and looks at the books for the last time.
    pub async fn end(mut self) {
        let mut server = Server::start(&self.stage, None, false);
        let url = server.url().await.expect("it starts");
        self.clients.begin();
        self.receiver.set(None, false);
        self.come_to_rest(&url).await;
        server.terminate();
        assert!(server.ended().await.success(), "{}", self.stage.log());
        let books = Books::read(&self.stage.data()).await.unwrap();
        let ledger = self.clients.ledger();
        let found =
            [books.lost(&ledger), books.faults(&self.receiver), books.unfinished(&self.receiver)].concat();
        assert!(found.is_empty(), "at the end: {found:#?}\n{}", self.stage.log());
        let mut table = String::new();
        for (name, rounds) in &self.made {
            table.push_str(&format!("{rounds:5}  {name}\n"));
        }
        table.push_str(&format!(
            "{:5}  kills: {} acknowledged, 0 lost; {} jobs, {} events, {} callbacks; {} pictures without a job\n",
            self.made(),
            ledger.acknowledged,
            books.jobs.len(),
            self.feed.after,
            self.receiver.count(),
            self.orphans.len(),
        ));
        // The test harness keeps what a passing test prints, and this is to be seen.
        std::io::stderr().write_all(table.as_bytes()).unwrap();
    }

    /// Returns when every job has ended, and every callback has arrived and is recorded.
    async fn come_to_rest(&mut self, url: &str) {
        let http = self.clients.http.clone();
        let get = async |path: String| -> Value {
            http.get(format!("{url}{path}")).send().await.unwrap().json().await.unwrap()
        };
        let (feed, receiver) = (&mut self.feed, &self.receiver);
        eventually(async || {
            let page = get(format!("/v1/events?limit=200&after={}", feed.after)).await;
            let events = page["items"].as_array().unwrap();
            events.iter().for_each(|event| feed.note(event));
            let taken = receiver.taken();
            let untold = feed.wanted.keys().filter(|id| !taken.contains(*id)).count();
            (events.is_empty() && feed.open.is_empty() && untold == 0).then_some(())
        })
        .await;
        let jobs: BTreeSet<_> = std::mem::take(&mut feed.wanted).into_values().collect();
        for job in jobs {
            eventually(async || {
                let page = get(format!("/v1/jobs/{job}/deliveries")).await;
                let all = page["items"].as_array().unwrap();
                all.iter().all(|delivery| delivery["state"] == "delivered").then_some(())
            })
            .await;
        }
        // What was read may not be synced yet. It is when a later step is answered.
        http.post(format!("{url}/v1/queue/resume")).send().await.unwrap().error_for_status().unwrap();
    }
}

impl Feed {
    fn note(&mut self, event: &Value) {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap();
        let (kind, job) = (text("/type"), text("/subject"));
        self.after = event["seq"].as_u64().unwrap();
        match kind {
            "job.queued" => drop(self.open.insert(job.to_owned())),
            "job.completed" | "job.failed" | "job.cancelled" => drop(self.open.remove(job)),
            _ => {}
        }
        let wanted = event.pointer("/data/callback/events").and_then(Value::as_array);
        if wanted.is_some_and(|wanted| wanted.iter().any(|wanted| kind.ends_with(wanted.as_str().unwrap()))) {
            self.wanted.insert(text("/id").to_owned(), job.to_owned());
        }
    }
}
