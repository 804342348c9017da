//! The service's side of its imaging processes: starts them, hands them work, and ends them.

use std::ffi::OsString;
use std::io::{self, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::frames::{self, Mark, Reply, Request, Walls};
use super::inside::Bounds;
use super::pool::Task;
use super::{ImagingError, Step};
use crate::domain::image::Watermark;
use crate::telemetry;

/// Pictures that a process works on before it is replaced, in case one of them has left something behind.
const MOST_PICTURES: u32 = 256;
/// What a process may use besides what its picture needs: itself, its stack, and what its allocator holds back.
const OWN_MEMORY: u64 = 64 << 20;

/// How imaging processes are started.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<OsString>,
    bounds: Bounds,
}

impl Launcher {
    /// Processes of this program, which work with `memory` bytes at the most on pictures that take `seconds` each.
    /// `arguments` makes of their bounds what the program is to be started with, to get to [`super::serve`].
    #[must_use]
    pub fn new(
        program: PathBuf,
        memory: u64,
        seconds: u64,
        arguments: impl Fn(&Bounds) -> Vec<OsString>,
    ) -> Self {
        let cpu_seconds = u64::from(MOST_PICTURES).saturating_mul(seconds.saturating_add(1));
        let bounds = Bounds { memory: memory.saturating_add(OWN_MEMORY), cpu_seconds };
        Self { program, arguments: arguments(&bounds), bounds }
    }

    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            // What is freed is the system's to take from then on, and costs nothing when it is used again before
            // (MADV_FREE): zeroing fresh pages was a quarter of all work. See [`Seat::rest`] for what is never taken.
            .env("MIMALLOC_PURGE_DELAY", "0")
            .env("MIMALLOC_PURGE_DECOMMITS", "0")
            // Address space that is only set aside would count against the limit on memory.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A Ctrl-C at the terminal is for the service, which ends its processes in its own time.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn()
    }
}

/// One piece of work, as whoever waits for it can end it.
#[derive(Debug, Default)]
pub(super) struct Cutoff(Mutex<Stage>);

#[derive(Debug, Default)]
enum Stage {
    /// Not begun, or done: there is nothing to kill.
    #[default]
    Idle,
    Runs(Arc<Mutex<Child>>),
    CutOff,
}

impl Cutoff {
    /// Ends the work: a process that is at it is killed.
    pub(super) fn cut_off(&self) {
        let mut stage = locked(&self.0);
        if let Stage::Runs(child) = &*stage {
            kill(child);
        }
        *stage = Stage::CutOff;
    }

    fn runs(&self, child: &Arc<Mutex<Child>>) -> Result<(), ImagingError> {
        let mut stage = locked(&self.0);
        if matches!(*stage, Stage::CutOff) {
            return Err(ImagingError::Stopped);
        }
        *stage = Stage::Runs(Arc::clone(child));
        Ok(())
    }

    /// What came of it. From here on the process is not this work's to kill; that it was is no fault of its own.
    fn outcome<T>(&self, made: Result<T, ImagingError>) -> Result<T, ImagingError> {
        let mut stage = locked(&self.0);
        if matches!(*stage, Stage::CutOff) {
            return Err(ImagingError::Stopped);
        }
        *stage = Stage::Idle;
        made
    }
}

/// The process of one imaging thread, which starts it, so that it ends with that thread at the latest.
#[derive(Debug)]
pub(super) struct Seat {
    launcher: Launcher,
    worker: Option<Worker>,
}

impl Seat {
    pub(super) fn new(launcher: Launcher) -> Self {
        Self { launcher, worker: None }
    }

    /// Starts the process, and tells what keeps it in.
    pub(super) fn start(&mut self, cutoff: &Cutoff) -> Result<Walls, ImagingError> {
        let (worker, walls) = Worker::start(&self.launcher, cutoff)?;
        self.worker = Some(worker);
        Ok(walls)
    }

    /// What pictures needed must not stay with an idle process, which would seem to have it: it ends, and the next picture
    /// starts another, with a deadline and somebody who can call it off.
    pub(super) fn rest(&mut self) {
        if self.worker.as_ref().is_some_and(|worker| worker.pictures > 0) {
            self.worker = None;
            count_end("rested");
        }
    }

    /// Does the task with `memory` bytes.
    pub(super) fn render(
        &mut self,
        task: &Task,
        memory: u64,
        steps: &mpsc::Sender<Step>,
        cutoff: &Cutoff,
    ) -> Result<(), ImagingError> {
        let mut worker = match self.worker.take().and_then(|worker| worker.fit_for(memory)) {
            Some(worker) => worker,
            None => Worker::start(&self.launcher, cutoff)?
                .0
                .fit_for(memory)
                .ok_or_else(|| died("it died at once"))?,
        };
        let made = cutoff.runs(&worker.child).and_then(|()| worker.render(task, memory, steps));
        match cutoff.outcome(made) {
            Err(error @ (ImagingError::Died { .. } | ImagingError::Stopped)) => Err(worker.end(error)),
            made => {
                self.worker = Some(worker);
                made
            }
        }
    }
}

#[derive(Debug)]
struct Worker {
    child: Arc<Mutex<Child>>,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
    /// Its own limit on memory, in bytes.
    most: u64,
    pictures: u32,
}

impl Worker {
    fn start(launcher: &Launcher, cutoff: &Cutoff) -> Result<(Self, Walls), ImagingError> {
        let mut child = launcher.spawn()?;
        let (Some(requests), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(died("it has no pipes"));
        };
        metrics::gauge!(telemetry::IMAGING_PROCESSES).increment(1.0);
        let child = Arc::new(Mutex::new(child));
        let mut worker = Self {
            child,
            requests,
            replies: BufReader::new(replies),
            most: launcher.bounds.memory,
            pictures: 0,
        };
        let ready = cutoff.runs(&worker.child).and_then(|()| worker.reply(0));
        match cutoff.outcome(ready) {
            Ok((Reply::Ready(walls), _)) => Ok((worker, walls)),
            Ok(_) => Err(worker.end(died("it did not say that it is ready"))),
            Err(error) => Err(worker.end(error)),
        }
    }

    /// Itself, with `memory` bytes for its next picture, unless it has died at rest, has worked enough, or has grown.
    fn fit_for(self, memory: u64) -> Option<Self> {
        let gone = !matches!(locked(&self.child).try_wait(), Ok(None));
        if gone {
            tracing::warn!("an imaging process died at rest; another takes its place");
            count_end("died");
        } else if self.pictures >= MOST_PICTURES || !self.allow(memory) {
            count_end("worn");
        } else {
            return Some(self);
        }
        None
    }

    fn render(&mut self, task: &Task, memory: u64, steps: &mpsc::Sender<Step>) -> Result<(), ImagingError> {
        self.pictures += 1;
        self.request(task).map_err(|error| died(&error.to_string()))?;
        let mut wanted: Vec<&str> = task.variants.iter().map(|variant| variant.name.as_str()).collect();
        loop {
            let step = match self.reply(memory)? {
                (Reply::Step(Step::Artifact(mut rendered)), bytes) => {
                    // The name becomes a file's: it must be one that was asked for.
                    let place = wanted.iter().position(|name| *name == rendered.name);
                    wanted.swap_remove(place.ok_or_else(|| died("it made what nobody asked for"))?);
                    rendered.bytes = bytes;
                    Step::Artifact(rendered)
                }
                (Reply::Step(step), _) => step,
                (Reply::Done, _) if wanted.is_empty() => return Ok(()),
                (Reply::Failed(failure), _) => return Err(failure.into_error()),
                (Reply::Done | Reply::Ready(_), _) => return Err(died("it ended before its work did")),
            };
            steps.blocking_send(step).map_err(|_| ImagingError::Stopped)?;
        }
    }

    fn request(&mut self, task: &Task) -> io::Result<()> {
        let Task { input, variants, watermarks, handling, limits } = task;
        let (handling, limits) = (*handling, *limits);
        let request = Request { variants: variants.clone(), handling, limits, watermarks: watermarks.len() };
        frames::write(&mut self.requests, &request, input)?;
        for (name, watermark) in watermarks {
            let Watermark { size, pixels, placement } = &**watermark;
            let mark = Mark { name: name.clone(), size: *size, placement: *placement };
            frames::write(&mut self.requests, &mark, pixels)?;
        }
        Ok(())
    }

    fn reply(&mut self, most: u64) -> Result<(Reply, Vec<u8>), ImagingError> {
        match frames::read(&mut self.replies, most) {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(died("it closed its pipe")),
            Err(error) => Err(died(&error.to_string())),
        }
    }

    /// Allows what it holds already and `memory` bytes more: one picture may use less than the process may in all
    /// its life, and only the service can raise that. False when that is more than it may ever have.
    ///
    /// What it holds is mostly address space that was given back, but perhaps in pieces too small for this picture.
    #[cfg(target_os = "linux")]
    fn allow(&self, memory: u64) -> bool {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = Pid::from_child(&locked(&self.child));
        let most = held(pid).saturating_add(memory).saturating_add(OWN_MEMORY);
        // Where this fails, the process's own limit holds.
        let limit = Rlimit { current: Some(most.min(self.most)), maximum: Some(self.most) };
        let _ = prlimit(Some(pid), Resource::Data, limit);
        self.pictures == 0 || most <= self.most
    }

    #[cfg(not(target_os = "linux"))]
    fn allow(&self, _: u64) -> bool {
        true
    }

    /// Ends the process, and says why it had died if it had.
    fn end(self, error: ImagingError) -> ImagingError {
        let mut child = locked(&self.child);
        // One that has closed its pipes by dying is there until it is waited for, so that its own end counts.
        let dying = matches!(error, ImagingError::Died { .. });
        let _ = child.kill();
        let status = child.wait();
        let mut said = String::new();
        if let Some(errors) = child.stderr.take() {
            let _ = errors.take(4096).read_to_string(&mut said);
        }
        drop(child);
        if !dying {
            count_end("killed");
            return error;
        }
        count_end("died");
        let reason = match (&error, status) {
            _ if said.contains("memory allocation of") => {
                "it needed more memory than was reserved for it".to_owned()
            }
            (_, Ok(status)) if !status.success() => how(status),
            (error, _) => error.to_string(),
        };
        tracing::warn!(reason, said = said.trim(), "an imaging process died");
        ImagingError::Died { reason }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut child = locked(&self.child);
        // Neither fails but for a process that has been waited for.
        let _ = child.kill();
        let _ = child.wait();
        metrics::gauge!(telemetry::IMAGING_PROCESSES).decrement(1.0);
    }
}

fn died(reason: &str) -> ImagingError {
    ImagingError::Died { reason: reason.to_owned() }
}

fn count_end(reason: &'static str) {
    metrics::counter!(telemetry::IMAGING_RESTARTS, "reason" => reason).increment(1);
}

fn kill(child: &Mutex<Child>) {
    // It fails for one that has been waited for.
    let _ = locked(child).kill();
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes of memory that count against a process's limit: data and stack, the sixth of `statm`'s numbers of pages.
#[cfg(target_os = "linux")]
fn held(pid: rustix::process::Pid) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = statm.split_ascii_whitespace().nth(5).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(rustix::param::page_size() as u64)
}

#[cfg(unix)]
fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => status.to_string(),
    }
}

#[cfg(not(unix))]
fn how(status: ExitStatus) -> String {
    status.to_string()
}
