//! SIGKILL takes back nothing that was acknowledged, wherever it falls.
//!
//! The real server works for clients and calls a receiver back; it is killed, the books are audited, and the next
//! one starts on what is left. Some kills fall at named points, which are system calls: a preloaded library counts
//! them and ends the process before, within or after the nth. Others fall when a callback comes in, within a start or
//! a stop, and at moments that nobody chose.
//!
//! After each kill: everything that was answered is there, every invariant holds, and accepted = finished + waiting +
//! running. After the last: every job has ended and every callback has arrived, the same bytes under the same id.
//!
//! `DARKROOM_KILLS=500 cargo test --test kill -- --nocapture` makes a long round. The named points need Linux and a C
//! compiler. A missing compiler fails the test under `CI=true`.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a test that meets the unexpected fails on the spot, and nothing here is anyone's interface"
)]

use std::time::Duration;

use self::rounds::Rounds;

mod books;
mod clients;
mod points;
mod receiver;
mod rounds;
mod server;

/// Kills of the short round.
const KILLS: usize = 50;
/// No wait is longer: far beyond what any of them takes, also on a busy machine.
const BOUND: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_take_back_nothing_that_was_acknowledged() {
    let kills = std::env::var("DARKROOM_KILLS").map_or(KILLS, |count| count.parse().unwrap());
    let mut rounds = Rounds::new().await;
    for point in points::named() {
        if rounds.made() < kills {
            rounds.make(point).await;
        }
    }
    let mut nth = 0;
    while rounds.made() < kills {
        rounds.make(points::busy(nth, below)).await;
        nth += 1;
    }
    rounds.end().await;
}

/// A number below `bound`, from the operating system.
fn below(bound: u64) -> u64 {
    u64::from_le_bytes(darkroom::clock::entropy()) % bound
}

/// Asks again and again until there is an answer, or the bound is reached.
async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let answer = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, answer).await.expect("done within the bound")
}
