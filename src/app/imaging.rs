//! Where pictures are worked on: in processes of this same program, or on threads of this one.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Imaging, Isolation};
use crate::imaging::{self, Bounds, Budget, ImagingError, Launcher, Pool};

/// The command that makes the program an imaging process, and the flags of its bounds.
pub const COMMAND: &str = "imaging-worker";
const MEMORY: &str = "--memory";
const CPU_SECONDS: &str = "--cpu-seconds";

/// Works on pictures until standard input ends, with so many bytes of memory and seconds of processor time.
pub fn work(memory: u64, cpu_seconds: u64) -> io::Result<()> {
    imaging::serve(&Bounds { memory, cpu_seconds })
}

pub(super) async fn pool(config: &Imaging) -> Result<Pool, ImagingError> {
    let budget = Budget::new(config.memory_mib);
    match config.isolation {
        Isolation::Thread => Ok(Pool::new(config.thread_count(), budget)?),
        Isolation::Process => {
            let program = config.program.clone().map_or_else(own_program, Ok)?;
            let (_, memory) = budget.usage();
            let launcher = Launcher::new(program, memory, config.max_time_ms.div_ceil(1000), arguments);
            Pool::of_processes(config.thread_count(), budget, &launcher).await
        }
    }
}

fn arguments(bounds: &Bounds) -> Vec<OsString> {
    let Bounds { memory, cpu_seconds } = bounds;
    [COMMAND, MEMORY, &memory.to_string(), CPU_SECONDS, &cpu_seconds.to_string()].map(OsString::from).to_vec()
}

/// This very program, also when another has been installed in its place meanwhile.
fn own_program() -> io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && running.exists() { Ok(running.to_owned()) } else { env::current_exe() }
}
