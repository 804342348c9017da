//! Clients in masses, against a server in a process of its own. Single abusers are elsewhere: headers without end in
//! `bounds.rs` and `server.rs`, bodies in `bad_input.rs` and `queue.rs`, unread answers in `connections.rs`.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;

use reqwest::{Client, StatusCode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::process::Server;
use crate::support::{BOUND, bounded, eventually, form, picture};

const IDLE: usize = 10_000;
/// What all of them may add to the server's memory, each on average. Measured are 31 KiB without optimization: a task,
/// hyper's buffer of 8 KiB once something has come in, and for one in ten the state of HTTP/2.
const BYTES_PER_CONNECTION: u64 = 64 * 1024;

/// Lets this process, and those that it starts, have as many files. `false`: the machine refuses.
fn may_open(files: u64) -> bool {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= files) {
        return true;
    }
    let can_be_raised = maximum.is_none_or(|maximum| maximum >= files);
    if can_be_raised {
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum }).unwrap();
    } else {
        eprintln!("skipped: this process may have {maximum:?} files, and needs {files}");
    }
    can_be_raised
}

async fn serve(folder: &Path, max_connections: &str) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    command
        .env("DARKROOM_SERVER__MAX_CONNECTIONS", max_connections)
        .env("DARKROOM_SERVER__HEADER_TIMEOUT_MS", "86400000")
        .env("DARKROOM_IMAGING__THREADS", "1");
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || Server::from(command, &folder)).await.unwrap()
}

fn resident_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn open_files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count()
}

/// Connections without a request: silent ones, half a header, a request that was answered, HTTP/2.
async fn idle(server: &Server, count: usize) -> Vec<TcpStream> {
    let address = server.url.trim_start_matches("http://");
    let mut idle = Vec::new();
    for n in 0..count {
        let mut stream = bounded(TcpStream::connect(address)).await.unwrap();
        let begin: &[u8] = match n % 10 {
            0 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            1..4 => b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Half:",
            4..7 => b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n",
            _ => b"",
        };
        stream.write_all(begin).await.unwrap();
        if begin.ends_with(b"\r\n\r\n") {
            // Unless it was closed for one that came after it.
            let _ = bounded(stream.read(&mut [0; 4096])).await;
        }
        idle.push(stream);
    }
    idle
}

async fn others_are_served(server: &Server) {
    let http = Client::builder().no_proxy().timeout(BOUND).build().unwrap();
    assert_eq!(http.get(format!("{}/health/ready", server.url)).send().await.unwrap().status(), 200);
    let upload = http.post(format!("{}/v1/jobs", server.url)).multipart(form(picture::jpeg(20, 20), &[]));
    assert_eq!(upload.send().await.unwrap().status(), StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_take_little_memory_and_others_are_served() {
    if !may_open(IDLE as u64 + 2000) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), "20000").await;
    others_are_served(&server).await;
    let before = resident_bytes(&server);
    let idle = idle(&server, IDLE).await;
    eventually(async || (open_files(&server) > IDLE).then_some(())).await;
    others_are_served(&server).await;
    let grown = resident_bytes(&server).saturating_sub(before) / IDLE as u64;
    println!("{grown} bytes for each of {IDLE} idle connections");
    assert!(grown < BYTES_PER_CONNECTION, "{grown} bytes each");
    drop(idle);
    tokio::task::spawn_blocking(|| server.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_idle_connections_than_there_are_places_keep_nobody_out() {
    const PLACES: usize = 300;
    if !may_open(2000) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), &PLACES.to_string()).await;
    others_are_served(&server).await;
    let others = open_files(&server);
    let idle = idle(&server, 3 * PLACES).await;
    others_are_served(&server).await;
    let open = open_files(&server);
    assert!(open < others + PLACES + 50, "{open} files, {others} of them before");
    drop(idle);
    tokio::task::spawn_blocking(|| server.stop()).await.unwrap();
}
