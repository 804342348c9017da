//! The cuts: write, cut, mount, verify; and what they found.

use std::fmt;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use darkroom::clock::{Stopwatch, random_fraction};
use serde::{Deserialize, Serialize};

use crate::disk::{self, Cutter, Disk};
use crate::parts::{self, Part, say};
use crate::system::{self, Unable};
use crate::verifier::Report;

/// Cuts of the short round.
const CUTS: usize = 5;
/// Cuts among which the control must find a loss.
const CONTROL_CUTS: usize = 10;
/// Cuts that a store goes through before the next one begins empty.
const CUTS_PER_STORE: usize = 5;
/// The first cut of a store falls into its making, or soon after.
const FIRST_CUT_WITHIN: Duration = Duration::from_millis(600);
/// The others fall this long after the first acknowledgement at most.
const CUT_WITHIN: Duration = Duration::from_millis(1500);
/// About what a commit takes.
const COMMIT: Duration = Duration::from_millis(8);
/// Within this time a writer begins, and ends by itself after a cut: far beyond what either takes.
const BOUND: Duration = Duration::from_secs(60);
const SIGABRT: i32 = 6;
/// Findings of one cut that are shown; what follows them is alike.
const SHOWN: usize = 5;

/// What the writer's `fdatasync` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fdatasync {
    /// What it should.
    Made,
    /// Nothing, and says that it did: a library that is loaded before the system's sees to that.
    TakenOut,
}

/// What the cuts found, in all.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    pub cuts: usize,
    pub stores: usize,
    /// Acknowledged before a cut.
    pub steps: usize,
    /// Those of them that were not there after it.
    pub lost: usize,
    /// Stores that held something in part.
    pub torn: usize,
    pub not_opened: usize,
    /// Writers that did not end by themselves when their disk was gone.
    pub stuck: usize,
}

impl Tally {
    pub fn found(&self) -> usize {
        self.lost + self.torn + self.not_opened
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cuts, stores, steps, lost, torn, not_opened, stuck } = self;
        write!(f, "{cuts} cuts of {stores} stores, {steps} steps acknowledged: ")?;
        write!(f, "{lost} lost, {torn} torn, {not_opened} not opened, {stuck} writers stuck")
    }
}

/// Makes the cuts in a process with mounts of its own: they go with it, however it ends.
pub fn play(fdatasync: Fdatasync) -> Result<Tally, Unable> {
    let unshare = ["unshare", "--mount", "--"];
    system::run(Command::new(unshare[0]).args(&unshare[1..]).arg("true"))?;
    let folder = tempfile::tempdir().unwrap();
    let part = match fdatasync {
        Fdatasync::Made => Part::Cuts,
        Fdatasync::TakenOut => Part::Control,
    };
    let mut process = part.command(&unshare, folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut outcome = None;
    for line in BufReader::new(process.stdout.take().unwrap()).lines() {
        match parts::heard(&line.unwrap()) {
            Some(News::Cut(text)) => println!("{text}"),
            Some(News::Outcome(result)) => outcome = Some(result),
            None => {}
        }
    }
    let status = process.wait().unwrap();
    outcome.unwrap_or_else(|| panic!("the cuts came to no end: {status}"))
}

/// What the process that makes the cuts says.
#[derive(Debug, Serialize, Deserialize)]
enum News {
    Cut(String),
    Outcome(Result<Tally, Unable>),
}

/// Makes the cuts, and says what they found.
pub fn run(folder: &Path, fdatasync: Fdatasync) {
    say(&News::Outcome(make(folder, fdatasync)));
}

fn make(folder: &Path, fdatasync: Fdatasync) -> Result<Tally, Unable> {
    let disk = Disk::new(folder)?;
    let mut stage = Stage { disk, preload: None, tally: Tally::default() };
    match fdatasync {
        Fdatasync::Made => {
            let cuts = std::env::var("DARKROOM_POWER_CUTS").map_or(CUTS, |count| count.parse().unwrap());
            while stage.tally.cuts < cuts {
                stage.store(CUTS_PER_STORE.min(cuts - stage.tally.cuts));
            }
        }
        Fdatasync::TakenOut => {
            let library = folder.join("no_fdatasync.so");
            disk::compile("no_fdatasync.c", &["-shared", "-fPIC"], &library)?;
            stage.preload = Some(library);
            while stage.tally.cuts < CONTROL_CUTS && stage.tally.found() == 0 {
                stage.store(CUTS_PER_STORE);
            }
        }
    }
    Ok(stage.tally)
}

/// Where the cuts are made, and what they have found so far.
struct Stage {
    disk: Disk,
    preload: Option<PathBuf>,
    tally: Tally,
}

impl Stage {
    /// The life of one store, with so many cuts; a store that was hurt is not looked at again.
    fn store(&mut self, cuts: usize) {
        self.tally.stores += 1;
        self.disk.format().unwrap();
        self.disk.mount().unwrap();
        let mut said = Vec::new();
        for nth in 0..cuts {
            let mut writer = Writer::start(&self.disk, self.preload.as_deref());
            if nth == 0 {
                writer.listen(FIRST_CUT_WITHIN.mul_f64(random_fraction()));
            } else {
                writer.listen_for_one();
                writer.listen(CUT_WITHIN.mul_f64(random_fraction()));
                // Half of the cuts come as close behind an answer as can be, the others into the next commit.
                writer.listen_for_one();
                writer.listen(COMMIT.mul_f64((random_fraction() * 2.0 - 1.0).max(0.0)));
            }
            let (heard, ended) = writer.cut();
            let steps = heard.len();
            said.extend(heard);
            self.disk.unmount().unwrap();
            self.disk.mount().unwrap();
            let report = verify(&self.disk, &said);
            if !self.count(steps, ended, &report) {
                break;
            }
        }
        self.disk.unmount().unwrap();
    }

    /// Adds what a cut found; `false` when that was anything.
    fn count(&mut self, steps: usize, ended: bool, report: &Report) -> bool {
        let tally = &mut self.tally;
        tally.cuts += 1;
        tally.steps += steps;
        tally.lost += report.lost.len();
        tally.torn += usize::from(!report.torn.is_empty());
        tally.not_opened += usize::from(report.not_opened.is_some());
        tally.stuck += usize::from(!ended);
        let Report { holds, not_opened, lost, torn } = report;
        let mut text = format!("cut {}: {steps} steps; {holds}", tally.cuts);
        text.push_str(if ended { "" } else { "\n  STUCK: the writer did not end" });
        text.extend(not_opened.iter().map(|reason| format!("\n  NOT OPENED: {reason}")));
        for (what, findings) in [("LOST", lost), ("TORN", torn)] {
            text.extend(findings.iter().take(SHOWN).map(|finding| format!("\n  {what}: {finding}")));
            if findings.len() > SHOWN {
                text.push_str(&format!("\n  {what}: {} in all", findings.len()));
            }
        }
        say(&News::Cut(text));
        not_opened.is_none() && lost.is_empty() && torn.is_empty()
    }
}

/// The process that writes, and what was heard of it.
struct Writer {
    process: Child,
    cutter: Cutter,
    pipe: UnixStream,
    heard: Vec<u8>,
}

impl Writer {
    fn start(disk: &Disk, preload: Option<&Path>) -> Self {
        let (ours, its) = UnixStream::pair().unwrap();
        let mut command = Part::Writer.command(&[], &disk.root().join("data"));
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        let cutter = disk.cutter().unwrap();
        let process = command.stdout(OwnedFd::from(its)).spawn().unwrap();
        Self { process, cutter, pipe: ours, heard: Vec::new() }
    }

    /// Takes what is said within this time, or the first of it; `false` when there will be no more.
    fn take(&mut self, within: Duration) -> bool {
        let mut part = [0; 64 * 1024];
        // A time-out of zero would be none.
        self.pipe.set_read_timeout(Some(within.max(Duration::from_micros(1)))).unwrap();
        match self.pipe.read(&mut part) {
            Ok(length) => {
                self.heard.extend_from_slice(&part[..length]);
                length > 0
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => panic!("the writer cannot be heard: {error}"),
        }
    }

    /// Listens for so long.
    fn listen(&mut self, time: Duration) {
        let stopwatch = Stopwatch::start();
        while let Some(left) = time.checked_sub(stopwatch.elapsed()) {
            assert!(self.take(left), "the writer ended before the cut: {}", self.process.wait().unwrap());
        }
    }

    /// Listens until something more is said.
    fn listen_for_one(&mut self) {
        let (stopwatch, known) = (Stopwatch::start(), self.heard.len());
        while lines(&self.heard[known..]).next().is_none() {
            assert!(stopwatch.elapsed() < BOUND, "the writer said nothing");
            assert!(self.take(BOUND), "the writer ended before the cut: {}", self.process.wait().unwrap());
        }
    }

    /// Cuts the power. Returns what was heard before, and whether the writer found out and ended itself.
    fn cut(mut self) -> (Vec<String>, bool) {
        // What is said from here on may have been acknowledged after the cut began, so it does not count.
        let before = self.heard.len();
        self.cutter.cut().unwrap();
        let stopwatch = Stopwatch::start();
        // Its pipe is emptied until it ends, as it would wait for room.
        while stopwatch.elapsed() < BOUND && self.take(BOUND) {}
        let ended = stopwatch.elapsed() < BOUND;
        if !ended {
            self.process.kill().unwrap();
        }
        let status = self.process.wait().unwrap();
        let heard: Vec<String> = lines(&self.heard[..before]).map(str::to_owned).collect();
        // Cut off while it opened the store, it ends in another way.
        let as_it_should = heard.is_empty() || !ended || status.signal() == Some(SIGABRT);
        assert!(as_it_should, "the writer did not abort: {status}");
        (heard, ended)
    }
}

/// The whole lines that are something said.
fn lines(heard: &[u8]) -> impl Iterator<Item = &str> {
    let whole = heard.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    std::str::from_utf8(&heard[..whole]).unwrap().lines().filter(|line| line.starts_with(parts::SAID))
}

/// Opens what is there in a process of its own, as it may be damaged, and compares it with what was said.
fn verify(disk: &Disk, said: &[String]) -> Report {
    let mut command = Part::Verifier.command(&[], &disk.root().join("data"));
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = process.stdin.take().unwrap();
    // An error means that it is gone; then it reports nothing either.
    let _ = said.iter().try_for_each(|line| writeln!(stdin, "{line}"));
    drop(stdin);
    let output = process.wait_with_output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout).lines().find_map(parts::heard);
    report.unwrap_or_else(|| Report {
        not_opened: Some(format!("the verifier ended, {}", output.status)),
        ..Report::default()
    })
}
