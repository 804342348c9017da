//! Measuring, and what all tables share.

use std::process::Command;

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 50)
}

pub(crate) fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values
        .get((values.len() * percent / 100).min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values.into_iter().fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

/// A line of a process's status, in MiB.
pub(crate) fn memory(pid: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Processor time of this process, and of its children whether they still run or not, in seconds.
pub(crate) fn cpu_of_family() -> f64 {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    // `self` and `thread-self` would count this process again.
    let numbered = processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    let stats = numbered.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
    let mut ticks = 0.0;
    for stat in stats {
        // The name, in brackets, may have spaces. Behind it: state, parent, and user and system time, in hundredths,
        // as the 12th and 13th, then those of children that have ended (proc(5)).
        let (id, rest) = (stat.split(' ').next().unwrap(), stat.rsplit(')').next().unwrap());
        let fields: Vec<_> = rest.split_whitespace().collect();
        if id == own || fields[1] == own {
            let times = if id == own { 11..15 } else { 11..13 };
            ticks += fields[times].iter().map(|field| field.parse::<f64>().unwrap()).sum::<f64>();
        }
    }
    ticks / 100.0
}

pub(crate) fn print_machine() {
    let output = |program: &str, args: &[&str]| {
        Command::new(program).args(args).output().ok().map_or_else(String::new, |output| {
            String::from_utf8_lossy(&output.stdout).trim().lines().last().unwrap_or("").to_owned()
        })
    };
    let args: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    println!("`cargo bench --bench images -- {}`, {}", args.join(" "), output("date", &["+%F"]));
    println!(
        "{} cores, {}, load {}",
        std::thread::available_parallelism().map_or(0, usize::from),
        output("uname", &["-sr"]),
        output("cut", &["-d ", "-f1-3", "/proc/loadavg"])
    );
}
