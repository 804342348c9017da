//! Requests over connections that are kept, each the next as soon as its answer is here. Written to the socket as they
//! are: a client's library would cost as much as what is measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{CONNECTIONS, DURING};

/// For one answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// What to ask, by turns.
pub(crate) struct Load {
    address: SocketAddr,
    requests: Arc<Vec<Vec<u8>>>,
}

/// What came of it.
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    /// Of an answer, in milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Load {
    pub(crate) fn of(address: SocketAddr, requests: Vec<Vec<u8>>) -> Self {
        Self { address, requests: Arc::new(requests) }
    }

    pub(crate) async fn run(self) -> Rate {
        let start = Instant::now();
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let (address, requests) = (self.address, Arc::clone(&self.requests));
                tokio::spawn(async move {
                    let mut connection = Connection::open(address).await;
                    let mut times = Vec::new();
                    for request in requests.iter().cycle() {
                        if start.elapsed() >= DURING {
                            break;
                        }
                        let asked = Instant::now();
                        connection.ask(request).await;
                        times.push(asked.elapsed().as_secs_f64() * 1000.0);
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::new();
        for client in clients {
            times.extend(client.await.unwrap());
        }
        let per_second = times.len() as f64 / start.elapsed().as_secs_f64();
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        Rate { per_second, p50: at(50), p99: at(99) }
    }
}

/// Bytes of the body that answers `request`.
pub(crate) async fn once(address: SocketAddr, request: &[u8]) -> usize {
    Connection::open(address).await.ask(request).await
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Asks, and reads the whole answer, which must be one of success and say how long it is.
    async fn ask(&mut self, request: &[u8]) -> usize {
        tokio::time::timeout(DEADLINE, async {
            self.stream.write_all(request).await.unwrap();
            self.buffer.clear();
            loop {
                let read = self.stream.read_buf(&mut self.buffer).await.unwrap();
                assert!(read > 0, "closed: {}", String::from_utf8_lossy(&self.buffer));
                let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
                    continue;
                };
                let head = std::str::from_utf8(&self.buffer[..end]).unwrap();
                assert!(head.starts_with("HTTP/1.1 20"), "{}", String::from_utf8_lossy(&self.buffer));
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
                });
                let length: usize = length.unwrap();
                if self.buffer.len() >= end + 4 + length {
                    return length;
                }
            }
        })
        .await
        .unwrap()
    }
}
