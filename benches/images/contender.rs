//! Those that are compared, each in processes of its own that take one job a line.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::figures;
use crate::pictures::Picture;

/// What makes this program a process of ours.
pub(crate) const WORKER: &str = "--worker";
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Ours,
    Sharp,
    Vips,
}

/// All that are there, ours first; says which are not, and how to get them.
pub(crate) fn present() -> Vec<Contender> {
    let mut present = Vec::new();
    for contender in [Contender::Ours, Contender::Sharp, Contender::Vips] {
        match contender.start() {
            Ok(process) => {
                println!("- {}", process.version);
                present.push(contender);
            }
            Err(error) => {
                println!("- without {} ({error}): {}", contender.name(), contender.how_to_install());
            }
        }
    }
    present
}

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Sharp => "sharp",
            Self::Vips => "libvips",
        }
    }

    fn how_to_install(self) -> &'static str {
        match self {
            Self::Ours => "",
            Self::Sharp => "`npm ci --prefix benches/peers`, or BENCH_NODE_MODULES=…/node_modules",
            Self::Vips => {
                "`python3 -m venv target/peers && target/peers/bin/pip install -r benches/peers/requirements.txt`, or \
                 BENCH_PYTHON=…/bin/python; without it nothing is judged"
            }
        }
    }

    fn command(self) -> Command {
        match self {
            Self::Ours => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                // As the service starts its imaging processes.
                command
                    .arg(WORKER)
                    .env("MIMALLOC_PURGE_DELAY", "0")
                    .env("MIMALLOC_PURGE_DECOMMITS", "0")
                    .env("MIMALLOC_ARENA_EAGER_COMMIT", "0");
                command
            }
            Self::Sharp => {
                let mut command = Command::new("node");
                command.arg(format!("{PEERS}/sharp.mjs"));
                command
            }
            Self::Vips => {
                let own = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers/bin/python");
                let own = if Path::new(own).exists() { own } else { "python3" };
                let mut command =
                    Command::new(std::env::var("BENCH_PYTHON").unwrap_or_else(|_| own.to_owned()));
                command.arg(format!("{PEERS}/vips.py")).env("VIPS_CONCURRENCY", "1");
                command
            }
        }
    }

    /// A process that is ready.
    pub(crate) fn start(self) -> io::Result<Process> {
        let mut command = self.command();
        // What a runtime says of a missing package is longer than how to install it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let answers = BufReader::new(child.stdout.take().unwrap());
        let jobs = child.stdin.take();
        let mut process = Process { child, jobs, answers, version: String::new(), contender: self };
        let ready = process.read()?;
        process.version = ready["version"].as_str().unwrap_or_default().to_owned();
        Ok(process)
    }
}

pub(crate) struct Process {
    child: Child,
    jobs: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub(crate) version: String,
    contender: Contender,
}

impl Process {
    /// Does the job and waits for its answer.
    pub(crate) fn ask(&mut self, job: &Value) -> Value {
        let answer = self.try_ask(job);
        assert!(answer["error"].is_null(), "{}: {job}: {}", self.contender.name(), answer["error"]);
        answer
    }

    /// The answer may be an error.
    pub(crate) fn try_ask(&mut self, job: &Value) -> Value {
        writeln!(self.jobs.as_mut().unwrap(), "{job}").unwrap();
        self.read().unwrap_or_else(|error| panic!("{}: {job}: {error}", self.contender.name()))
    }

    fn read(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(io::Error::other("it does not start, or has ended"));
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// MiB at the most until now.
    pub(crate) fn peak(&self) -> f64 {
        figures::memory(self.child.id(), "VmHWM")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // All of them end with their input.
        drop(self.jobs.take());
        let _ = self.child.wait();
    }
}

/// A job as a line.
pub(crate) fn job(kind: &str, picture: &Picture, output: &Path) -> Value {
    json!({
        "kind": kind,
        "input": picture.path,
        "output": output,
        "preview": picture.sized(800),
        "thumbnail": picture.sized(200),
    })
}
