//! What delivering costs, each attempt durably recorded, beside a bare client of the same library against the same
//! receiver in the same run: `cargo bench --bench deliveries`. `benches/README.md` has a run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench reads the clock, prints its figures, and stops on the spot when something fails"
)]

use std::time::Duration;

use self::rig::{Receivers, Rig};

mod receiver;
mod rig;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Deliveries of one round.
const DELIVERIES: usize = 20_000;
/// Connections of the bare client.
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 3;
/// For the latencies.
const LONG: Duration = Duration::from_secs(20);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| Some(args.get(args.iter().position(|arg| arg == name)? + 1)?.as_str());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(ports) = value("--receiver") {
        return runtime.block_on(receiver::run(ports.parse().unwrap()));
    }
    let count = value("--deliveries").map_or(DELIVERIES, |count| count.parse().unwrap());
    let only = value("--only");
    let wants = |name: &str| only.is_none_or(|only| only == name);
    let _ = rustls_provider();
    if wants("sustained") {
        runtime.block_on(sustained(count));
    }
    if wants("latency") {
        runtime.block_on(latency());
    }
    if wants("isolation") {
        runtime.block_on(isolation());
    }
    if wants("backlog") {
        runtime.block_on(backlog(value("--backlog").map_or(100_000, |count| count.parse().unwrap())));
    }
}

fn rustls_provider() -> bool {
    rustls::crypto::aws_lc_rs::default_provider().install_default().is_ok()
}

/// Everything that waits is sent, as fast as it goes.
async fn sustained(count: usize) {
    println!("\n## Sustained, {count} deliveries, bare client with {CONNECTIONS} connections\n");
    println!("| receivers | bare posts/s | deliveries/s | ratio | CPU s per 1000 deliveries |");
    println!("|---|---|---|---|---|");
    for receivers in [1, 100] {
        for _ in 0..ROUNDS {
            let receivers = Receivers::start(receivers).await;
            let rig = Rig::open().await;
            let bytes = rig.fill(&receivers, count).await;
            let bare = rig::bare(&receivers, count, CONNECTIONS, bytes).await;
            let (rate, cpu) = rig.drain(count).await;
            println!(
                "| {} | {bare:.0} | {rate:.0} | {:.1} % | {:.3} |",
                receivers.urls.len(),
                100.0 * rate / bare,
                1000.0 * cpu / count as f64
            );
            rig.close().await;
        }
    }
}

/// From the commit of what is told to its arrival, 20 a second.
async fn latency() {
    let receivers = Receivers::start(1).await;
    let rig = Rig::open().await;
    let syncs = rig.sync_times(200);
    let url = receivers.urls[0].replace("/hook", "/say");
    let times = rig.paced(&receivers, |_| (url.clone(), true), 20, LONG).await;
    println!("\n## From commit to arrival, 20 a second, {LONG:?}\n");
    println!("| | p50 ms | p99 ms |\n|---|---|---|");
    println!("| one fdatasync | {:.2} | {:.2} |", rig::percentile(&syncs, 50), rig::percentile(&syncs, 99));
    println!("| arrival | {:.2} | {:.2} |", rig::percentile(&times, 50), rig::percentile(&times, 99));
    rig.close().await;
}

/// What healthy destinations wait when others are dead or hang, 100 a second over 100 destinations.
async fn isolation() {
    println!("\n## Healthy of 100 destinations, 100 a second, {LONG:?}\n");
    println!("| the others | p50 ms | p99 ms |\n|---|---|---|");
    for (name, hanging, dead, share) in [
        ("none", 0, 0, 0),
        ("1 hangs", 1, 0, 0),
        ("10: half hang, half refuse connections", 5, 5, 0),
        ("50: half hang, half refuse connections", 25, 25, 0),
        ("1 hangs, and has a third of all", 1, 0, 3),
    ] {
        let receivers = Receivers::start(100).await;
        let rig = Rig::open().await;
        let hung = rig::Hung::start(hanging).await;
        let target = |n: usize| {
            let (own, is_shares) = (n % 100, share > 0 && n.is_multiple_of(share));
            if is_shares || own < hanging {
                (hung.urls[if is_shares { 0 } else { own }].clone(), false)
            } else if own < hanging + dead {
                // A port where nobody listens, at an address of its own.
                (format!("http://127.0.1.{own}:9/hook"), false)
            } else {
                (receivers.urls[own].replace("/hook", "/say"), true)
            }
        };
        let times = rig.paced(&receivers, target, 100, LONG).await;
        println!("| {name} | {:.2} | {:.2} |", rig::percentile(&times, 50), rig::percentile(&times, 99));
        rig.close().await;
    }
}

/// Claims for others while a dead destination has many waiting.
async fn backlog(count: usize) {
    println!("\n## A dead destination with {count} waiting\n");
    println!(
        "| waiting | as many delivered before | deliveries/s to another | MiB resident |\n|---|---|---|---|"
    );
    // A store that holds as much and has nothing waiting tells what the waiting costs from what the size does.
    for (waiting, delivered) in [(0, 0), (0, count), (count, 0)] {
        let receivers = Receivers::start(1).await;
        let rig = Rig::open().await;
        if delivered > 0 {
            rig.fill(&receivers, delivered).await;
            rig.drain(delivered).await;
        }
        rig.fill_dead(waiting).await;
        rig.fill(&receivers, DELIVERIES).await;
        let (rate, _) = rig.drain(DELIVERIES).await;
        println!("| {waiting} | {delivered} | {rate:.0} | {} |", rig::resident());
        rig.close().await;
    }
}
