//! Where the server is killed.

use std::fmt;
use std::time::Duration;

/// A system call of the server, and which side of it.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Its name, and a part of the path that it is about.
    pub on: (&'static str, &'static str),
    pub when: When,
    pub nth: u64,
}

#[derive(Debug, Clone, Copy)]
pub enum When {
    Before,
    /// After the first half of a write.
    Half,
    After,
}

/// As the preloaded library reads it.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { on: (call, file), when, nth } = self;
        let when = match when {
            When::Before => "before",
            When::Half => "half",
            When::After => "after",
        };
        write!(f, "{call} {file} {when} {nth}")
    }
}

/// From when on calls count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// The process began.
    Start,
    /// The requests of the round began.
    Requests,
    /// A callback came in, and was not answered yet.
    Callback,
    /// SIGTERM.
    Term,
}

/// What ends the server.
#[derive(Debug, Clone, Copy)]
pub enum How {
    /// Itself, at one of its system calls.
    At(Call, Since),
    /// The receiver of this callback, before it answers.
    Callback(u64),
    /// The same, as its answer goes out.
    Answer(u64),
    /// We, so long after it began to take requests.
    Time(Duration),
    /// We, so long after its process was started.
    StartTime(Duration),
    /// We, so long after SIGTERM.
    TermTime(Duration),
}

/// What goes on meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Nothing but the start.
    None,
    /// One job, after everything before it has come to its end: so it is known what is under way at the kill.
    One,
    /// Several clients, who submit, cancel, delete, restore and retry.
    Many,
}

/// How far the one job has come, as the store that is left says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    Nothing,
    Queued,
    /// With so many artifacts noted.
    Started(usize),
    Completed,
    /// Its callback's attempt is recorded.
    Told,
}

#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub name: &'static str,
    pub how: How,
    pub load: Load,
    pub leaves: Option<Leaves>,
}

const DB: &str = "store/db";
const WRITTEN: (&str, &str) = ("pwrite64", DB);
const SYNCED: (&str, &str) = ("fdatasync", DB);

/// The points of a lone job's life, of a start and of a stop, in this order: some need what those before left behind.
pub fn named() -> Vec<Point> {
    use Leaves::{Completed, Nothing, Queued, Started, Told};
    use When::{After, Before, Half};
    let start = |name, on, when| Point {
        name,
        how: How::At(Call { on, when, nth: 1 }, Since::Start),
        load: Load::None,
        leaves: None,
    };
    let job = |name, on, when, nth, leaves| Point {
        name,
        how: How::At(Call { on, when, nth }, Since::Requests),
        load: Load::One,
        leaves: Some(leaves),
    };
    let told = |name, on, when, leaves| Point {
        name,
        how: How::At(Call { on, when, nth: 1 }, Since::Callback),
        load: Load::One,
        leaves: Some(leaves),
    };
    let stop = |name, on, when| Point {
        name,
        how: How::At(Call { on, when, nth: 1 }, Since::Term),
        load: Load::Many,
        leaves: None,
    };
    vec![
        start("store made, configuration half written", ("write", "store/conf"), Half),
        start("store made, configuration without its sum", ("write", "store/conf"), After),
        start("store made, not synced", ("fsync", "store/conf"), Before),
        start("store made, not marked as made", ("fsync", "store/made"), Before),
        job("picture half written", ("write", ".part"), Half, 1, Nothing),
        job("picture synced, not renamed", ("rename", ".original"), Before, 1, Nothing),
        job("picture renamed, job not committed", ("rename", ".original"), After, 1, Nothing),
        job("submit half written", WRITTEN, Half, 1, Nothing),
        job("submit written, not synced", SYNCED, Before, 1, Queued),
        job("submit synced, not answered", SYNCED, After, 1, Queued),
        job("claim written, not synced", SYNCED, Before, 2, Started(0)),
        start("start: leases freed, not synced", SYNCED, Before),
        start("start: engine's file half cleared", WRITTEN, Half),
        start("start: snapshot half written", ("write", "store/snap."), Half),
        start("start: snapshot not renamed", ("rename", "store/snap."), Before),
        start("start: snapshot renamed, old one there", ("rename", "store/snap."), After),
        job("claim synced, not begun", SYNCED, After, 2, Started(0)),
        job("artifact half written", ("write", ".part"), Half, 2, Started(0)),
        job("artifact renamed, not noted", ("rename", ".thumbnail"), After, 1, Started(1)),
        job("last artifact renamed, not noted", ("rename", ".optimized"), After, 1, Started(2)),
        job("finish written, not synced", SYNCED, Before, 3, Completed),
        job("finish synced", SYNCED, After, 3, Completed),
        Point {
            name: "callback came in, not answered",
            how: How::Callback(1),
            load: Load::One,
            leaves: Some(Completed),
        },
        told("callback answered, settle not written", WRITTEN, Before, Completed),
        told("settle half written", WRITTEN, Half, Completed),
        told("settle written, not synced", SYNCED, Before, Told),
        told("settle synced", SYNCED, After, Told),
        stop("stop: sync under way", SYNCED, Before),
        stop("stop: engine not closed", ("fsync", DB), Before),
    ]
}

/// A point within the work of many, or a moment that nobody chose; `below` draws by lot.
pub fn busy(nth: usize, below: impl Fn(u64) -> u64) -> Point {
    let at = |on, when, bound| How::At(Call { on, when, nth: 1 + below(bound) }, Since::Requests);
    let millis = |bound| Duration::from_millis(below(bound));
    let kinds: [(&str, How); 12] = [
        ("busy: any moment", How::Time(millis(800))),
        ("busy: written, not synced", at(SYNCED, When::Before, 40)),
        ("busy: synced, not answered", at(SYNCED, When::After, 40)),
        ("busy: stopping, any moment", How::TermTime(millis(20))),
        ("busy: commit half written", at(WRITTEN, When::Half, 80)),
        ("busy: any moment", How::Time(millis(800))),
        ("busy: picture renamed, not committed", at(("rename", ".original"), When::After, 15)),
        ("busy: artifact renamed, not noted", at(("rename", ".preview"), When::After, 12)),
        ("busy: callback came in, not answered", How::Callback(1 + below(10))),
        ("busy: callback's answer goes out", How::Answer(1 + below(10))),
        ("busy: picture half written", at(("write", ".part"), When::Half, 40)),
        ("starting, any moment", How::StartTime(millis(120))),
    ];
    let (name, how) = kinds[nth % kinds.len()];
    Point { name, how, load: Load::Many, leaves: None }
}
