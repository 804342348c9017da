//! What the HTTP room costs, beside what it cannot do without: a status beside the same route of warp with a constant
//! body, a durable submission beside threads that write, sync and rename the same files. `cargo bench --bench http`;
//! `benches/README.md` has a run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench reads the clock, prints its figures, and stops on the spot when something fails"
)]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use self::load::{Load, Rate};
use self::server::Server;

mod load;
mod server;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections, and threads of the yardstick.
const CONNECTIONS: usize = 64;
/// Rounds of each; what is compared takes turns.
const ROUNDS: usize = 5;
/// Of one round.
const DURING: Duration = Duration::from_secs(4);
/// Of a picture that is submitted.
const PICTURE_BYTES: usize = 20 * 1024;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(place) = args.iter().position(|arg| arg == server::CONSTANT) {
        return runtime.block_on(server::constant(args[place + 1].parse().unwrap()));
    }
    println!("{} cores; {ROUNDS} rounds of {DURING:?}, {CONNECTIONS} connections\n", cores());
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        status(folder.path()).await;
        submissions(folder.path()).await;
    });
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// `GET /v1/jobs/{id}` of a job that has ended.
async fn status(folder: &Path) {
    let service = Server::service(&folder.join("status"), &[]);
    let path = service.finished_job(picture()).await;
    let get = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", service.address);
    let length = load::once(service.address, get.as_bytes()).await;
    let constant = Server::constant(length);
    let bare = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", constant.address);
    println!("## Status, {length} bytes of JSON\n");
    println!(
        "| constant body/s | status/s | ratio | constant p99 ms | status p99 ms |\n|---|---|---|---|---|"
    );
    for _ in 0..ROUNDS {
        let yardstick = Load::of(constant.address, vec![bare.clone().into_bytes()]).run().await;
        let ours = Load::of(service.address, vec![get.clone().into_bytes()]).run().await;
        println!(
            "| {:.0} | {:.0} | {:.2} | {:.2} | {:.2} |",
            yardstick.per_second,
            ours.per_second,
            ours.per_second / yardstick.per_second,
            yardstick.p99,
            ours.p99
        );
    }
}

/// `POST /v1/jobs` while nobody works, so that accepting is all there is: what one of several machines does whose
/// workers are others.
async fn submissions(folder: &Path) {
    let capacity = ("DARKROOM_QUEUE__CAPACITY", "10000000");
    let service = Server::service(&folder.join("submit"), &[capacity]);
    service.pause_work().await;
    let picture = picture();
    println!("\n## Submissions of {} bytes, durable before they are answered\n", picture.len());
    println!(
        "| written, synced, renamed/s | submitted/s | ratio | submission p50 ms | p99 ms |\n|---|---|---|---|---|"
    );
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: {}\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
        service.address,
        picture.len()
    );
    let request = [head.as_bytes(), &picture].concat();
    for round in 0..ROUNDS {
        let place = folder.join(format!("files-{round}"));
        fs::create_dir(&place).unwrap();
        let yardstick = written(&place, &picture);
        fs::remove_dir_all(&place).unwrap();
        let Rate { per_second, p50, p99 } = Load::of(service.address, vec![request.clone()]).run().await;
        println!(
            "| {yardstick:.0} | {per_second:.0} | {:.2} | {p50:.2} | {p99:.2} |",
            per_second / yardstick
        );
    }
}

/// Files a second that as many threads write, sync and rename in one folder.
fn written(folder: &Path, bytes: &[u8]) -> f64 {
    let start = Instant::now();
    let written: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut count = 0;
                    while start.elapsed() < DURING {
                        let name = format!("{thread}-{count}");
                        let partial = folder.join(format!("{name}.part"));
                        let mut file = File::create(&partial).unwrap();
                        file.write_all(bytes).unwrap();
                        file.sync_all().unwrap();
                        fs::rename(partial, folder.join(name)).unwrap();
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    written as f64 / start.elapsed().as_secs_f64()
}

/// A JPEG of noise, as large as one that is submitted, give or take a twentieth.
fn picture() -> Vec<u8> {
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let side: u16 = 176;
    let samples: Vec<u8> = (0..usize::from(side) * usize::from(side) * 3).map(|_| noise()).collect();
    let best = (1..=100).map(|quality| {
        let mut bytes = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut bytes, quality);
        encoder.encode(&samples, side, side, jpeg_encoder::ColorType::Rgb).unwrap();
        bytes
    });
    best.min_by_key(|bytes| bytes.len().abs_diff(PICTURE_BYTES)).unwrap()
}
