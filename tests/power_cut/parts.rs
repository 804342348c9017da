//! The processes of a cut. Each is this very test binary, started again with a part to play.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use darkroom::blobs::Blobs;
use darkroom::clock::Clock;
use darkroom::domain::destination::BreakerPolicy;
use darkroom::domain::dispatch::DispatchPolicy;
use darkroom::store::sled::{OpenError, Options, SledStore};
use darkroom::store::{Policy, Store};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cuts::{self, Fdatasync};
use crate::{verifier, writer};

const PART: &str = "DARKROOM_POWER_CUT_PART";
const FOLDER: &str = "DARKROOM_POWER_CUT_FOLDER";

/// What a line begins with that is said from one part to another.
pub const SAID: char = '{';

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    Cuts,
    Control,
    Writer,
    Verifier,
}

impl Part {
    /// The command that plays this part in `folder`; what stands in `before` runs it.
    pub fn command(self, before: &[&str], folder: &Path) -> Command {
        let mut words: Vec<OsString> = before.iter().map(OsString::from).collect();
        words.push(std::env::current_exe().unwrap().into());
        words.extend(["part", "--exact", "--ignored", "--nocapture"].map(OsString::from));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command.env(PART, serde_json::to_string(&self).unwrap()).env(FOLDER, folder);
        command
    }
}

/// Plays the part that this process was started for, if it was.
pub fn run() {
    let Ok(part) = std::env::var(PART) else { return };
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    match serde_json::from_str(&part).unwrap() {
        Part::Cuts => cuts::run(&folder, Fdatasync::Made),
        Part::Control => cuts::run(&folder, Fdatasync::TakenOut),
        Part::Writer => writer::run(&folder),
        Part::Verifier => verifier::run(&folder),
    }
}

/// Whatever waits can be claimed, so that all of it can be counted.
fn unbounded() -> DispatchPolicy {
    let breaker = BreakerPolicy { min_samples: u32::MAX, ..BreakerPolicy::default() };
    DispatchPolicy {
        per_destination: u32::MAX,
        at_first: u32::MAX,
        unproven: usize::MAX,
        rate_per_second: 0,
        breaker,
    }
}

/// Opens the data folder as the service does, or makes it.
pub fn open(folder: &Path) -> Result<(Arc<dyn Store>, Blobs), OpenError> {
    let failed = |source| OpenError::Folder { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let month = Duration::from_secs(30 * 24 * 60 * 60);
    let source = "https://darkroom.example".to_owned();
    let policy = Policy {
        dispatch: unbounded(),
        source,
        keep_finished: month,
        keep_deleted: month,
        keep_undelivered: month,
    };
    let options = Options { cache_bytes: 64 * 1024 * 1024, policy };
    let store = SledStore::open(&folder.join("store"), options, Clock::system().now())?;
    Ok((Arc::new(store), Blobs::open(folder, 0).map_err(failed)?))
}

/// Says something to the process that started this one; when nobody listens any more, there is no reason to go on.
/// It goes out in one piece, on a line of its own: the harness of the tests writes there too, and leaves its line open.
pub fn say(what: &impl Serialize) {
    let line = format!("\n{}\n", serde_json::to_string(what).unwrap());
    if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
        std::process::exit(1);
    }
}

/// Reads what was said, if this line is that.
pub fn heard<T: DeserializeOwned>(line: &str) -> Option<T> {
    line.starts_with(SAID).then(|| serde_json::from_str(line).unwrap())
}
