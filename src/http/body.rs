//! A request's body as it comes in: bounded in time, and read to a reasonable end when it is refused.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt as _};
use http::HeaderMap;
use http::header::EXPECT;
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};

/// What is still read of a body after its request was refused, so that the client gets to see the answer:
/// closing a connection with unread bytes resets it, and the answer may be lost with that.
const LINGER_BYTES: usize = 64 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// What a request may have that is no upload.
pub(super) const SMALL_BYTES: usize = 64 * 1024;
const SMALL_TIME: Duration = Duration::from_secs(10);

/// The body's chunks; an error is the client's connection breaking.
pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>;

/// A body not read yet, or not to its end.
pub(super) struct Body {
    /// Never locked: it lets those share a request who look at the rest of it.
    chunks: Mutex<Option<Chunks>>,
    /// The client waits for a `100 Continue`, which hyper sends when the body is first polled.
    expects_continue: bool,
    begun: bool,
}

impl Body {
    pub(super) fn new(
        stream: impl Stream<Item = Result<impl Buf, warp::Error>> + Send + 'static,
        headers: &HeaderMap,
    ) -> Self {
        let chunks = stream.map(|chunk| chunk.map(|mut buf| buf.copy_to_bytes(buf.remaining())));
        let expects_continue =
            headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        Self { chunks: Mutex::new(Some(Box::pin(chunks))), expects_continue, begun: false }
    }

    /// The next chunk; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, warp::Error>> {
        self.begun = true;
        let chunks = self.chunks.get_mut().unwrap_or_else(PoisonError::into_inner);
        let chunk = match chunks {
            Some(chunks) => chunks.next().await,
            None => None,
        };
        if !matches!(chunk, Some(Ok(_))) {
            *chunks = None;
        }
        chunk
    }
}

impl Body {
    /// The whole of a small body; nothing is an empty one.
    pub(super) async fn small(&mut self) -> Result<Vec<u8>, Problem> {
        self.up_to(SMALL_BYTES).await
    }

    /// The whole of a body of no more than so many bytes.
    pub(super) async fn up_to(&mut self, limit: usize) -> Result<Vec<u8>, Problem> {
        let read = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = self.next().await {
                let broken = || Problem::of(Code::RequestTimeout).with_detail("the body broke off");
                bytes.extend_from_slice(&chunk.map_err(|_| broken())?);
                if bytes.len() > limit {
                    return Err(Problem::payload_too_large(limit as u64));
                }
            }
            Ok(bytes)
        };
        let late = || Problem::of(Code::RequestTimeout).with_detail("the body did not come in time");
        tokio::time::timeout(SMALL_TIME, read).await.unwrap_or_else(|_| Err(late()))
    }

    /// A small body of JSON; an empty one is one without members.
    pub(super) async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        let mut bytes = self.small().await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            bytes = b"{}".to_vec();
        }
        // By name alone: serde would take an array for the members in their order.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Problem::of(Code::MalformedJson).with_detail("a JSON object is expected"));
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| Problem::of(Code::MalformedJson).with_detail(error.to_string()))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let chunks = self.chunks.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(chunks) = chunks.take() else { return };
        // Polling now would ask for a body that nobody wants.
        let never_asked = self.expects_continue && !self.begun;
        if !never_asked && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(LINGER_TIME, discard(chunks)));
        }
    }
}

async fn discard(mut chunks: Chunks) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(chunk)) = chunks.next().await {
        match left.checked_sub(chunk.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
