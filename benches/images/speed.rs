//! Processor time, pictures a second, and what became of the pictures.

use std::collections::HashMap;
use std::fs;
use std::sync::Mutex;
use std::time::Instant;

use serde_json::Value;

use crate::contender::{Contender, Process, job};
use crate::figures::{mean, median};
use crate::pictures::Picture;
use crate::{Bench, quality};

/// Processes of each contender where all cores are at work.
const WORKERS: usize = 2;

/// By contender and number of the picture.
pub(crate) type Made = HashMap<(&'static str, usize), Value>;

pub(crate) fn compare(bench: &Bench, kind: &str) {
    println!("\n## {kind}\n");
    let (cpu, made) = one_at_a_time(bench, kind);
    print_cpu(bench, &cpu);
    println!("\n| {WORKERS} processes each | {} |", columns(bench, |contender| contender.name().to_owned()));
    println!("|---|{}", "---|".repeat(bench.contenders.len()));
    let rates = together(bench, kind);
    let cells = bench.contenders.iter().zip(&rates).map(|(_, rate)| format!("{rate:.2}"));
    println!("| pictures/s | {} |", cells.collect::<Vec<_>>().join(" | "));
    print_bytes(bench, &made);
    quality::compare(bench, &made);
}

fn columns(bench: &Bench, cell: impl Fn(Contender) -> String) -> String {
    bench.contenders.iter().map(|contender| cell(*contender)).collect::<Vec<_>>().join(" | ")
}

/// Processor time of each contender for each picture, in milliseconds, and what the last round made.
fn one_at_a_time(bench: &Bench, kind: &str) -> (HashMap<&'static str, Vec<f64>>, Made) {
    let mut processes: Vec<(Contender, Process)> =
        bench.contenders.iter().map(|contender| (*contender, contender.start().unwrap())).collect();
    let mut times: HashMap<_, Vec<Vec<f64>>> = HashMap::new();
    let mut made = Made::new();
    for round in 0..=bench.rounds {
        for turn in 0..processes.len() {
            // Each begins as often as the others.
            let next = (round + turn) % processes.len();
            let (contender, process) = &mut processes[next];
            // One after the other, as a worker that has work waiting.
            for (number, photo) in bench.photos.iter().enumerate() {
                let output = bench.place(contender.name(), photo);
                let answer = process.ask(&job(kind, photo, &output));
                if round > 0 {
                    let times = times.entry(contender.name()).or_default();
                    times.resize(bench.photos.len(), Vec::new());
                    times[number].push(answer["cpu_ms"].as_f64().unwrap());
                }
                made.insert((contender.name(), number), answer["files"].clone());
            }
        }
    }
    let medians = |times: Vec<Vec<f64>>| times.into_iter().map(median).collect();
    (times.into_iter().map(|(name, times)| (name, medians(times))).collect(), made)
}

fn print_cpu(bench: &Bench, cpu: &HashMap<&'static str, Vec<f64>>) {
    let ours = Contender::Ours;
    let peers: Vec<_> = bench.contenders.iter().copied().filter(|contender| *contender != ours).collect();
    let mut heads: Vec<_> = bench.contenders.iter().map(|contender| contender.name().to_owned()).collect();
    heads.extend(peers.iter().map(|peer| format!("{} / ours", peer.name())));
    println!("| CPU ms a picture | {} |", heads.join(" | "));
    println!("|---|{}", "---|".repeat(heads.len()));
    let print = |name: &str, numbers: &[usize]| {
        if numbers.is_empty() {
            return;
        }
        let of = |contender: &Contender| mean(numbers.iter().map(|number| cpu[contender.name()][*number]));
        let mut cells: Vec<_> = bench.contenders.iter().map(|one| format!("{:.1}", of(one))).collect();
        cells.extend(peers.iter().map(|peer| format!("{:.2}", of(peer) / of(&ours))));
        println!("| {name} | {} |", cells.join(" | "));
    };
    let numbers = |wanted: &dyn Fn(&Picture) -> bool| -> Vec<usize> {
        (0..bench.photos.len()).filter(|number| wanted(&bench.photos[*number])).collect()
    };
    let (baseline, progressive) =
        (numbers(&|photo| !photo.is_progressive()), numbers(&Picture::is_progressive));
    print(&format!("all {}", bench.photos.len()), &numbers(&|_| true));
    print(&format!("baseline, {}", baseline.len()), &baseline);
    print(&format!("progressive, {}", progressive.len()), &progressive);
    for (number, photo) in bench.photos.iter().enumerate() {
        print(&photo.name, &[number]);
    }
}

/// Pictures a second of each contender, by the wall clock, where two processes share the set.
fn together(bench: &Bench, kind: &str) -> Vec<f64> {
    let mut teams: Vec<(Contender, Vec<Process>)> = bench
        .contenders
        .iter()
        .map(|contender| (*contender, (0..WORKERS).map(|_| contender.start().unwrap()).collect()))
        .collect();
    let mut rates = vec![Vec::new(); teams.len()];
    for round in 0..=bench.rounds {
        for (rates, (contender, team)) in rates.iter_mut().zip(&mut teams) {
            // Each photo as often as there are processes, so that the last one alone counts for less.
            let jobs: Vec<_> = (0..WORKERS).flat_map(|_| &bench.photos).collect();
            let (count, start, waiting) = (jobs.len(), Instant::now(), Mutex::new(jobs));
            std::thread::scope(|scope| {
                for (number, process) in team.iter_mut().enumerate() {
                    let (waiting, contender) = (&waiting, *contender);
                    scope.spawn(move || {
                        let next = || waiting.lock().unwrap().pop();
                        while let Some(photo) = next() {
                            let output = bench.place(&format!("{}-{number}", contender.name()), photo);
                            process.ask(&job(kind, photo, &output));
                        }
                    });
                }
            });
            if round > 0 {
                rates.push(count as f64 / start.elapsed().as_secs_f64());
            }
        }
    }
    rates.into_iter().map(median).collect()
}

fn print_bytes(bench: &Bench, made: &Made) {
    let inputs = mean(bench.photos.iter().map(|photo| photo.bytes as f64)) / 1024.0;
    println!(
        "\n| KiB a picture, of {inputs:.0} | {} | ours / sharp |",
        columns(bench, |contender| contender.name().to_owned())
    );
    println!("|---|{}---|", "---|".repeat(bench.contenders.len()));
    for artifact in ["preview", "thumbnail", "original"] {
        let size = |contender: &Contender| {
            let sizes = (0..bench.photos.len()).filter_map(|number| {
                let path = made[&(contender.name(), number)][artifact].as_str()?;
                Some(fs::metadata(path).unwrap().len() as f64 / 1024.0)
            });
            mean(sizes)
        };
        if size(&Contender::Ours).is_nan() {
            continue;
        }
        let ratio = if bench.contenders.contains(&Contender::Sharp) {
            format!("{:.3}", size(&Contender::Ours) / size(&Contender::Sharp))
        } else {
            String::new()
        };
        println!("| {artifact} | {} | {ratio} |", columns(bench, |one| format!("{:.1}", size(&one))));
    }
}
