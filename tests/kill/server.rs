//! The real binary, as a process of its own.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::BOUND;
use crate::points::Call;

/// What the server of each round finds.
pub struct Stage {
    root: PathBuf,
    /// The library that kills it at a system call, where there is one.
    pub kill_at: Option<PathBuf>,
}

impl Stage {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), kill_at: compile(root) }
    }

    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The file from whose existence on calls count.
    pub fn armed(&self) -> PathBuf {
        self.root.join("armed")
    }

    /// What the servers logged, the end of it.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.root.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned()
    }
}

fn compile(root: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kill/kill_at.c");
    let library = root.join("kill_at.so");
    let options = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"];
    let unable = if cfg!(target_os = "linux") {
        match Command::new("cc").args(options).arg("-o").arg(&library).arg(source).output() {
            Ok(output) if output.status.success() => return Some(library),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => format!("cc: {error}"),
        }
    } else {
        "they need Linux".to_owned()
    };
    assert!(std::env::var_os("CI").is_none(), "no kills at system calls: {unable}");
    // The test harness keeps what a passing test prints, and this is to be seen.
    let _ = writeln!(std::io::stderr(), "SKIPPED, no kills at system calls, only at moments: {unable}");
    None
}

/// Its process, which ends with this at the latest.
pub struct Server {
    process: Process,
    url: tokio::sync::oneshot::Receiver<String>,
}

/// Who may kill it: the round, and the receiver of its callbacks.
#[derive(Clone)]
pub struct Process(Arc<Mutex<Child>>);

impl Server {
    /// Starts it, to die at this call if there is one.
    pub fn start(stage: &Stage, call: Option<Call>, wait_until_armed: bool) -> Self {
        let log = File::options().create(true).append(true).open(stage.root.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
        // It refuses variables that mean nothing to it.
        command.env_remove("DARKROOM_KILLS");
        command
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(stage.data())
            .env("DARKROOM_LOG__FILTER", "warn")
            .env("DARKROOM_CALLBACKS__RETRY_INITIAL_MS", "50")
            .env("DARKROOM_CALLBACKS__RETRY_MULTIPLIER", "1")
            .env("DARKROOM_QUEUE__RETRY_DELAY_MS", "50")
            .stdout(Stdio::piped())
            .stderr(log);
        if let (Some(library), Some(call)) = (&stage.kill_at, call) {
            command.env("LD_PRELOAD", library).env("KILL_AT", call.to_string());
            if wait_until_armed {
                command.env("KILL_ARMED", stage.armed());
            }
        }
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, url) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let line = BufReader::new(stdout).lines().map_while(Result::ok).next();
            let url = line.as_deref().and_then(|line| line.strip_prefix("listening on "));
            url.map(|url| sender.send(url.to_owned()))
        });
        Self { process: Process(Arc::new(Mutex::new(child))), url }
    }

    pub fn process(&self) -> Process {
        self.process.clone()
    }

    /// Where it listens, once it does; `None` when it ends before.
    pub async fn url(&mut self) -> Option<String> {
        tokio::time::timeout(BOUND, &mut self.url).await.expect("it starts, or ends").ok()
    }

    /// Returns when it has ended, by itself or by someone else.
    pub async fn ended(&self) -> ExitStatus {
        crate::eventually(async || self.process.lock().try_wait().unwrap()).await
    }

    pub fn terminate(&self) {
        let pid = self.process.lock().id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill();
    }
}

impl Process {
    /// SIGKILL; one that has ended is left alone.
    pub fn kill(&self) {
        let mut child = self.lock();
        if child.kill().is_ok() {
            let _ = child.wait();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
