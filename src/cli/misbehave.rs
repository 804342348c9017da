//! Answers that no HTTP library gives: written to the bare connection, below hyper.

use std::io::{self, Write as _};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A misbehaviour ends when the sender goes away, or after this time.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 60);

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\nconnection: close\r\n\r\nslow\n";
const HALF_A_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/pl";
const HALF_A_BODY: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1000\r\n\r\nthis is not all of it";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
const CHUNK: usize = 0x4000;
const GARBAGE: &[u8] = b"\x00\xff\xfe this is no HTTP \x16\x03\r\n\r\n";
const BOMB_BYTES: usize = 100 << 20;

/// What to do instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misbehaviour {
    Timeout,
    StallHead,
    StallBody,
    /// One byte, and the next after this time.
    Slow(Duration),
    EndlessBody,
    HeaderFlood,
    GzipBomb,
    Garbage,
    Close,
    CloseBody,
    Reset,
    ResetBody,
}

impl Misbehaviour {
    /// What the sender gets to read as the status, if anything.
    pub(super) fn status(self) -> Option<StatusCode> {
        match self {
            Self::Timeout | Self::Garbage | Self::Close | Self::Reset => None,
            Self::StallHead
            | Self::StallBody
            | Self::Slow(_)
            | Self::EndlessBody
            | Self::HeaderFlood
            | Self::GzipBomb
            | Self::CloseBody
            | Self::ResetBody => Some(StatusCode::OK),
        }
    }

    /// Misbehaves on a connection whose request was read to its end, and closes it.
    pub(super) async fn perform(self, mut stream: TcpStream) {
        // That the sender goes away is how most of these end.
        let _ = timeout(LONGEST, self.act(&mut stream)).await;
    }

    async fn act(self, stream: &mut TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        match self {
            Self::Timeout => gone(stream).await,
            Self::StallHead => {
                stream.write_all(HALF_A_HEAD).await?;
                gone(stream).await
            }
            Self::StallBody => {
                stream.write_all(HALF_A_BODY).await?;
                gone(stream).await
            }
            Self::Slow(interval) => {
                for byte in ANSWER {
                    stream.write_all(&[*byte]).await?;
                    sleep(interval).await;
                }
                stream.shutdown().await
            }
            Self::EndlessBody => {
                let chunk = [format!("{CHUNK:x}\r\n").as_bytes(), &[b'x'; CHUNK], b"\r\n"].concat();
                without_end(stream, CHUNKED, &chunk).await
            }
            Self::HeaderFlood => {
                let line = format!("x-flood: {}\r\n", "x".repeat(1000)).repeat(16);
                without_end(stream, b"HTTP/1.1 200 OK\r\n", line.as_bytes()).await
            }
            Self::GzipBomb => {
                let bomb = tokio::task::spawn_blocking(gzip_bomb).await??;
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-encoding: gzip\r\n\
                     content-length: {}\r\nconnection: close\r\n\r\n",
                    bomb.len()
                );
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&bomb).await?;
                stream.shutdown().await
            }
            Self::Garbage => {
                stream.write_all(GARBAGE).await?;
                stream.shutdown().await
            }
            Self::Close => stream.shutdown().await,
            Self::CloseBody => {
                stream.write_all(HALF_A_BODY).await?;
                stream.shutdown().await
            }
            Self::Reset => stream.set_zero_linger(),
            Self::ResetBody => {
                stream.write_all(HALF_A_BODY).await?;
                stream.set_zero_linger()
            }
        }
    }
}

/// Waits until the sender closes its side; what it sends until then is of no interest.
async fn gone(stream: &mut TcpStream) -> io::Result<()> {
    let mut ignored = [0; 1024];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// Writes `again` until the sender has enough.
async fn without_end(stream: &mut TcpStream, first: &[u8], again: &[u8]) -> io::Result<()> {
    stream.write_all(first).await?;
    loop {
        stream.write_all(again).await?;
    }
}

fn gzip_bomb() -> io::Result<Vec<u8>> {
    let zeros = [0; 1 << 16];
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..BOMB_BYTES / zeros.len() {
        encoder.write_all(&zeros)?;
    }
    encoder.finish()
}
