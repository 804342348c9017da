//! What the store's durable steps cost, beside what the disk itself allows in the same run, and whether that
//! stays so as the store fills: `cargo bench --bench store -- --jobs 1000000`. `benches/README.md` has a run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench reads the clock, prints its figures, and stops on the spot when something fails"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use self::figures::{Figures, Meter};
use self::steps::{DAY, Desk, Fill};

mod figures;
mod steps;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds of every comparison; what is compared takes turns in each.
const ROUNDS: usize = 5;
/// Jobs of one section of a round.
const JOBS: usize = 2000;
/// Finished jobs in the stores that are compared.
const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];
/// Jobs of one client that another's wait beside.
const CROWD: usize = 100_000;
/// Days of constant load, and the jobs of each.
const DAYS: usize = 12;
const JOBS_A_DAY: usize = 5000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| Some(args.get(args.iter().position(|arg| arg == name)? + 1)?.as_str());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(store) = value("--open") {
        let work = Duration::from_secs(value("--work").unwrap().parse().unwrap());
        return runtime.block_on(opened(Path::new(store), work));
    }
    let most = value("--jobs").map_or(100_000, |jobs| jobs.parse().unwrap());
    let folder = tempfile::tempdir_in(std::env::var("BENCH_DIR").unwrap_or_else(|_| ".".to_owned())).unwrap();
    let sizes: Vec<usize> = SIZES.into_iter().filter(|size| *size <= most).collect();
    figures::print_machine(folder.path());
    println!("\nEach figure is the median of {ROUNDS} rounds of {JOBS} jobs, {} at once.", steps::PRODUCERS);
    let stores = runtime.block_on(sizes_compared(&folder, &sizes));
    runtime.block_on(clients_compared(&folder, &stores[0]));
    open_and_memory(&stores, if most < 1_000_000 { 10 } else { 60 });
    drop(stores);
    runtime.block_on(constant_load(&folder));
}

/// The same steps on stores of different sizes, in turn.
async fn sizes_compared(folder: &TempDir, sizes: &[usize]) -> Vec<PathBuf> {
    println!("\n## Filling\n");
    println!(
        "| finished jobs, each with a waiting delivery | jobs/s | bytes on disk per job | MiB resident |"
    );
    println!("|---|---|---|---|");
    let mut desks = Vec::new();
    for size in sizes {
        let desk = Desk::open(&folder.path().join(format!("store-{size}"))).await;
        let start = Instant::now();
        let fill = desk.fill(*size).await;
        let rate = *size as f64 / start.elapsed().as_secs_f64();
        let (bytes, memory) = (figures::disk_use(&desk.folder), figures::memory("VmRSS"));
        println!("| {size} | {rate:.0} | {} | {memory} |", bytes / *size as u64);
        desks.push((desk, fill));
    }
    let mut figures = Figures::default();
    for _ in 0..ROUNDS {
        for (size, (desk, fill)) in sizes.iter().zip(&desks) {
            let mut meter = Meter::new(folder.path());
            round(desk, fill, &mut meter).await;
            figures.add(*size, meter);
        }
    }
    figures.print_against_yardstick(sizes[0]);
    commits_shared(&desks[0].0).await;
    println!("\n## Flat: finished jobs, and as many waiting deliveries");
    figures.print_flat(sizes);
    let mut folders = Vec::new();
    for (desk, _) in desks {
        desk.store.close().await;
        folders.push(desk.folder.clone());
    }
    folders
}

/// Every step once, each of them measured.
async fn round(desk: &Desk, fill: &Fill, meter: &mut Meter<'_>) {
    let singles = JOBS / 4;
    meter.measure("submit", JOBS, desk.submit("dev", JOBS)).await;
    let mut jobs = meter.measure("claim, 1 at a time", singles, desk.claim(singles, 1)).await;
    jobs.extend(meter.measure("claim, 16 at a time", JOBS - singles, desk.claim(JOBS - singles, 16)).await);
    meter.measure("finish", JOBS, desk.finish(jobs, desk.now())).await;
    let due =
        meter.measure("claim deliveries, 16 at a time", JOBS, desk.claim_deliveries(JOBS, desk.now())).await;
    meter.measure("settle", JOBS, desk.settle(due, None)).await;
    // The time is passed in: the day after tomorrow, all those of the dead destination are due at once.
    let later = desk.now() + 2 * DAY;
    let due = meter.measure("claim deliveries, all due", JOBS, desk.claim_deliveries(JOBS, later)).await;
    meter.measure("settle, all due", JOBS, desk.settle(due, Some(later + DAY))).await;
    for (what, query) in fill.pages() {
        meter.measure(what, steps::PAGES, desk.list(query)).await;
    }
}

/// How many steps share a commit, and so a sync.
async fn commits_shared(desk: &Desk) {
    let (_, submits) = figures::commits(&desk.store, desk.submit("dev", JOBS)).await;
    let (jobs, claims) = figures::commits(&desk.store, desk.claim(JOBS, 1)).await;
    let (_, finishes) = figures::commits(&desk.store, desk.finish(jobs, desk.now())).await;
    let [submits, claims, finishes] =
        [submits, claims, finishes].map(|commits| JOBS as f64 / f64::from(commits));
    println!(
        "\nSteps that shared a commit, and so a sync, on average: {submits:.0} submits, {claims:.0} claims, {finishes:.0} finishes."
    );
}

/// Claims of a client's jobs while another has many, beside claims without that.
async fn clients_compared(folder: &TempDir, plain: &Path) {
    let (plain, crowded) = (Desk::open(plain).await, Desk::open(&folder.path().join("crowded")).await);
    crowded.submit("crowd", CROWD).await;
    let mut figures = Figures::default();
    for _ in 0..ROUNDS {
        for (crowd, desk) in [(0, &plain), (CROWD, &crowded)] {
            desk.submit("dev", JOBS).await;
            let mut meter = Meter::new(folder.path());
            // Each claimed job of the one client comes with one of the other.
            let count = if crowd == 0 { JOBS } else { 2 * JOBS };
            let jobs = meter.measure("claim, 1 at a time", count, desk.claim(count, 1)).await;
            assert_eq!(steps::of_client(&jobs, "dev"), JOBS);
            desk.finish(jobs, desk.now()).await;
            figures.add(crowd, meter);
        }
    }
    println!("\n## One client's jobs while another has that many queued");
    figures.print_flat(&[0, CROWD]);
    println!("\nWith {CROWD} queued, every second job claimed was the other client's.");
    plain.store.close().await;
    crowded.store.close().await;
}

/// Opening each store in a process of its own: after a clean end, after a minute of work, and after a kill.
fn open_and_memory(stores: &[PathBuf], seconds: u64) {
    println!("\n## Opening, and memory\n");
    println!("Cache {} MiB; a fresh process each time.\n", steps::CACHE_BYTES >> 20);
    println!(
        "| store | opened after | open | resident then | resident after {seconds} s of work | its peak |"
    );
    println!("|---|---|---|---|---|---|");
    for store in stores {
        for (after, work) in [("a clean end", seconds), ("a kill at work", 0)] {
            let run = Command::new(std::env::current_exe().unwrap())
                .args(["--open".as_ref(), store.as_os_str(), "--work".as_ref(), work.to_string().as_ref()])
                .output()
                .unwrap();
            let name = store.file_name().unwrap().to_string_lossy().into_owned();
            print!("| {name} | {after} | {}", String::from_utf8(run.stdout).unwrap());
        }
    }
}

/// The child's part of it. It ends without closing the store.
async fn opened(store: &Path, work: Duration) {
    let start = Instant::now();
    let desk = Desk::open(store).await;
    let opened = start.elapsed();
    print!("{:.2} s | {} MiB |", opened.as_secs_f64(), figures::memory("VmRSS"));
    if work.is_zero() {
        println!(" | |");
        return;
    }
    let start = Instant::now();
    while start.elapsed() < work {
        desk.whole_story(JOBS, desk.now()).await;
        desk.list(steps::newest()).await;
    }
    println!(" {} MiB | {} MiB |", figures::memory("VmRSS"), figures::memory("VmHWM"));
    std::process::exit(0);
}

/// Days of the same load, with what is a day old removed each day.
async fn constant_load(folder: &TempDir) {
    println!("\n## Disk use under constant load\n");
    println!("{JOBS_A_DAY} jobs a day, each with one callback, kept for a day.\n");
    println!("| day | jobs kept | MiB on disk | bytes per kept job | yesterday's jobs removed per s |");
    println!("|---|---|---|---|---|");
    let desk = Desk::open(&folder.path().join("constant")).await;
    let first = desk.now();
    for day in 0..DAYS {
        let now = first + DAY * u32::try_from(day).unwrap();
        desk.whole_story(JOBS_A_DAY, now).await;
        let start = Instant::now();
        let purged = desk.purge(now).await;
        let rate = purged as f64 / start.elapsed().as_secs_f64();
        let bytes = figures::disk_use(&desk.folder);
        println!(
            "| {} | {JOBS_A_DAY} | {:.1} | {} | {rate:.0} |",
            day + 1,
            bytes as f64 / f64::from(1 << 20),
            bytes / JOBS_A_DAY as u64
        );
    }
    desk.store.close().await;
}
