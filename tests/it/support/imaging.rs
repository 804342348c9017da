//! Imaging by itself, in processes as the service has them.

use std::num::NonZeroUsize;
use std::sync::Arc;

use darkroom::app::imaging::COMMAND;
use darkroom::domain::image::{Handling, Limits, Variant, Watermarks};
use darkroom::imaging::{Bounds, Budget, ImagingError, Launcher, Permit, Pool, Rendered, Step, Task};
use tokio::sync::mpsc;

use super::bounded;

/// One process, and a budget of so many MiB.
pub async fn pool(mib: u32) -> Pool {
    let arguments = |bounds: &Bounds| {
        let Bounds { memory, cpu_seconds } = bounds;
        let flags = [format!("--memory={memory}"), format!("--cpu-seconds={cpu_seconds}")];
        [COMMAND.into()].into_iter().chain(flags.map(Into::into)).collect()
    };
    let program = env!("CARGO_BIN_EXE_darkroom").into();
    let launcher = Launcher::new(program, u64::from(mib) << 20, 3600, arguments);
    Pool::of_processes(NonZeroUsize::MIN, Budget::new(mib), &launcher).await.unwrap()
}

pub struct Made {
    /// The bytes of memory that were reserved for it.
    pub reserved: u64,
    pub artifacts: Vec<Rendered>,
}

/// Makes the variants as a job does.
pub async fn make(
    pool: &Pool,
    input: Vec<u8>,
    variants: Vec<Variant>,
    watermarks: Watermarks,
    limits: Limits,
) -> Result<Made, ImagingError> {
    let permit: Permit = Arc::new(Arc::clone(pool.room()).acquire_owned().await.unwrap());
    let handling = Handling::default();
    let task = Arc::new(Task { input, variants, watermarks, handling, limits });
    let room = bounded(pool.reserve(&permit, &task)).await?;
    let reserved = room.bytes();
    let (steps, mut taken) = mpsc::channel(64);
    bounded(pool.render(permit, room, task, steps)).await?;
    let mut artifacts = Vec::new();
    while let Some(step) = taken.recv().await {
        if let Step::Artifact(rendered) = step {
            artifacts.push(rendered);
        }
    }
    Ok(Made { reserved, artifacts })
}
