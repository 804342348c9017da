//! Measuring, and the tables.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use darkroom::store::Store;
use tokio::sync::oneshot;

/// How long the disk alone is measured, on either side of a round.
const YARDSTICK: Duration = Duration::from_millis(400);
/// How much slower than on the smallest store a step may be on another.
const FLAT: f64 = 0.75;

/// What was measured of one step.
#[derive(Debug, Clone, Copy)]
struct Figure {
    /// Per second.
    rate: f64,
    /// Per second, as a multiple of the yardstick of its round.
    ratio: f64,
    /// Processor time of the whole process for one, in microseconds.
    cpu: f64,
}

/// One round.
pub(crate) struct Meter<'a> {
    disk: &'a Path,
    before: f64,
    measured: Vec<(&'static str, f64, f64)>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(disk: &'a Path) -> Self {
        Self { disk, before: appends_per_second(disk), measured: Vec::new() }
    }

    /// Measures `count` steps of a kind.
    pub(crate) async fn measure<T>(
        &mut self,
        what: &'static str,
        count: usize,
        steps: impl Future<Output = T>,
    ) -> T {
        let (start, cpu) = (Instant::now(), processor_time());
        let result = steps.await;
        let (took, cpu) = (start.elapsed().as_secs_f64(), processor_time() - cpu);
        self.measured.push((what, count as f64 / took, cpu / count as f64));
        result
    }
}

/// Counts the commits of `steps` that made events, by the times the end of the event log moved.
pub(crate) async fn commits<T>(store: &Arc<dyn Store>, steps: impl Future<Output = T>) -> (T, u32) {
    let mut end = store.signals().events.subscribe();
    let (is_over, over) = oneshot::channel::<()>();
    // A thread of its own: a commit is missed only when the next one is over before this has been woken.
    let count = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut count, mut over) = (0, pin!(over));
            loop {
                tokio::select! {
                    biased;
                    _ = end.changed() => count += 1,
                    _ = &mut over => return count,
                }
            }
        })
    });
    let result = steps.await;
    drop(is_over);
    (result, count.join().unwrap())
}

/// All rounds, by what was measured and on which store.
#[derive(Default)]
pub(crate) struct Figures {
    names: Vec<&'static str>,
    figures: BTreeMap<(&'static str, usize), Vec<Figure>>,
    yardsticks: Vec<f64>,
}

impl Figures {
    pub(crate) fn add(&mut self, size: usize, meter: Meter<'_>) {
        let after = appends_per_second(meter.disk);
        self.yardsticks.extend([meter.before, after]);
        let yardstick = f64::midpoint(meter.before, after);
        for (what, rate, cpu) in meter.measured {
            if !self.names.contains(&what) {
                self.names.push(what);
            }
            let figure = Figure { rate, ratio: rate / yardstick, cpu };
            self.figures.entry((what, size)).or_default().push(figure);
        }
    }

    fn median(&self, what: &'static str, size: usize, of: fn(&Figure) -> f64) -> f64 {
        median(self.figures[&(what, size)].iter().map(of).collect())
    }

    pub(crate) fn print_against_yardstick(&self, size: usize) {
        let yardsticks = self.yardsticks.iter().copied();
        let (least, most) =
            (yardsticks.clone().fold(f64::MAX, f64::min), yardsticks.clone().fold(0.0, f64::max));
        println!("\n## Beside the disk (store of {size})\n");
        println!("| | per s | times the yardstick | µs of processor |");
        println!("|---|---|---|---|");
        let yardstick = median(yardsticks.collect());
        println!(
            "| yardstick: append 4 KiB + fdatasync, one thread ({least:.0} to {most:.0}) | {yardstick:.0} | 1 | |"
        );
        for what in self.names.iter().filter(|name| !name.starts_with("list")) {
            let (rate, ratio) = (self.median(what, size, |f| f.rate), self.median(what, size, |f| f.ratio));
            println!("| {what} | {rate:.0} | {ratio:.2} | {:.0} |", self.median(what, size, |f| f.cpu));
        }
    }

    /// Rates beside those of the first size, round by round.
    pub(crate) fn print_flat(&self, sizes: &[usize]) {
        println!("\nPer second (of the smallest's rate; µs of processor)\n");
        let columns: Vec<_> = sizes.iter().map(|size| format!(" {size} |")).collect();
        println!("| |{}", columns.concat());
        println!("|---|{}", "---|".repeat(sizes.len()));
        for what in &self.names {
            print!("| {what} |");
            let first = &self.figures[&(*what, sizes[0])];
            for size in sizes {
                let figures = &self.figures[&(*what, *size)];
                let share = median(figures.iter().zip(first).map(|(f, first)| f.rate / first.rate).collect());
                let rate = self.median(what, *size, |f| f.rate);
                let mark = if share < FLAT { " **slower**" } else { "" };
                print!(
                    " {rate:.0} ({:.0} %; {:.0}){mark} |",
                    100.0 * share,
                    self.median(what, *size, |f| f.cpu)
                );
            }
            println!();
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The yardstick.
fn appends_per_second(folder: &Path) -> f64 {
    let path = folder.join("appends");
    let mut file = File::create(&path).unwrap();
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < YARDSTICK {
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    std::fs::remove_file(path).unwrap();
    rate
}

/// What the process has used so far, all threads, in microseconds.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name, in brackets, may have spaces; user and system time are the 12th and 13th behind it, in hundredths.
    let behind = stat.rsplit(')').next().unwrap();
    let ticks = behind.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap());
    ticks.sum::<f64>() * 10_000.0
}

/// A line of the process's own status, in MiB.
pub(crate) fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// What the files of a folder take on the disk, without the room that a store only sets aside.
pub(crate) fn disk_use(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| !path.ends_with("ballast"))
        .map(|path| if path.is_dir() { disk_use(&path) } else { path.metadata().unwrap().blocks() * 512 })
        .sum()
}

pub(crate) fn print_machine(folder: &Path) {
    let output = |program: &str, args: &[&str]| {
        Command::new(program).args(args).output().ok().map_or_else(String::new, |output| {
            String::from_utf8_lossy(&output.stdout).trim().lines().last().unwrap_or("").to_owned()
        })
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let args: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    println!("`cargo bench --bench store -- {}`, {}", args.join(" "), output("date", &["+%F"]));
    println!(
        "{cores} cores, {}, load {}",
        output("uname", &["-sr"]),
        output("cut", &["-d ", "-f1-3", "/proc/loadavg"])
    );
    println!("disk: {}", output("df", &["--output=source,fstype", &folder.to_string_lossy()]));
}
