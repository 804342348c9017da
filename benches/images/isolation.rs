//! What it costs that pictures are worked on in processes of their own.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use darkroom::app::imaging::COMMAND;
use darkroom::domain::image::{Handling, Watermarks};
use darkroom::imaging::{Bounds, Budget, Launcher, Pool, Task};
use tokio::sync::mpsc;

use crate::Bench;
use crate::figures::{cpu_of_family, median};
use crate::pictures::{self, LIMITS};

/// As in `config/default.toml`.
const MEMORY_MIB: u32 = 1536;

pub(crate) fn compare(bench: &Bench) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        println!("\n## Isolation\n");
        println!(
            "Through the pool, one picture at a time, all {} photos; ms a picture.\n",
            bench.photos.len()
        );
        println!("| | threads: CPU | processes: CPU | ratio | threads: wall | processes: wall | ratio |");
        println!("|---|---|---|---|---|---|---|");
        let budget = || Budget::new(MEMORY_MIB);
        let threads = Pool::new(NonZeroUsize::MIN, budget()).unwrap();
        let launcher =
            Launcher::new(env!("CARGO_BIN_EXE_darkroom").into(), u64::from(MEMORY_MIB) << 20, 120, arguments);
        let processes = Pool::of_processes(NonZeroUsize::MIN, budget(), &launcher).await.unwrap();
        for kind in ["variants", "full"] {
            let mut figures = [Vec::new(), Vec::new()];
            for round in 0..=bench.rounds {
                for (pool, figures) in [&threads, &processes].into_iter().zip(&mut figures) {
                    let figure = pass(bench, pool, kind).await;
                    if round > 0 {
                        figures.push(figure);
                    }
                }
            }
            let [threads, processes] = figures.map(|rounds| {
                let of = |which: fn(&(f64, f64)) -> f64| median(rounds.iter().map(which).collect());
                (of(|(cpu, _)| *cpu), of(|(_, wall)| *wall))
            });
            let cells = |threads: f64, processes: f64| {
                format!("{threads:.1} | {processes:.1} | {:.3}", processes / threads)
            };
            println!("| {kind} | {} | {} |", cells(threads.0, processes.0), cells(threads.1, processes.1));
        }
    });
}

fn arguments(bounds: &Bounds) -> Vec<std::ffi::OsString> {
    let Bounds { memory, cpu_seconds } = bounds;
    let flags = [format!("--memory={memory}"), format!("--cpu-seconds={cpu_seconds}")];
    [COMMAND.into()].into_iter().chain(flags.map(Into::into)).collect()
}

/// Milliseconds a picture: of processor time, and by the wall clock.
async fn pass(bench: &Bench, pool: &Pool, kind: &str) -> (f64, f64) {
    let (cpu, wall) = (cpu_of_family(), Instant::now());
    for photo in &bench.photos {
        let permit = Arc::new(Arc::clone(pool.room()).acquire_owned().await.unwrap());
        let input = std::fs::read(&photo.path).unwrap();
        let variants = pictures::variants(kind);
        let (watermarks, handling) = (Watermarks::new(), Handling::default());
        let task = Arc::new(Task { input, variants, watermarks, handling, limits: LIMITS });
        let room = pool.reserve(&permit, &task).await.unwrap();
        let (steps, mut told) = mpsc::channel(64);
        let taken = tokio::spawn(async move { while told.recv().await.is_some() {} });
        pool.render(permit, room, task, steps).await.unwrap();
        taken.await.unwrap();
    }
    let (cpu, wall) = (cpu_of_family() - cpu, wall.elapsed().as_secs_f64());
    // One picture at a time, so more of it than of time would be an error of the accounts; ticks and pipes aside.
    assert!(cpu <= wall * 1.1 + 0.1, "{cpu} s of processor in {wall} s");
    let count = bench.photos.len() as f64;
    (1000.0 * cpu / count, 1000.0 * wall / count)
}
