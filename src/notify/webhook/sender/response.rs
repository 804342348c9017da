//! What is kept of an answer.

use http::header::{HeaderMap, HeaderValue};
use reqwest::Response;

use crate::domain::attempt::ResponseHead;

/// How much of a response's body is kept.
pub(super) const KEPT_BODY: usize = 4 * 1024;
/// How much of a response's body is read before the connection is closed.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// How much of a response's headers is kept, names and values together.
pub(super) const KEPT_HEADERS: usize = 2 * 1024;

/// The headers by which a receiver steers the schedule.
const STEERING: [&str; 2] = ["retry-after", "webhook-delivery"];
/// The headers whose values are credentials.
const CREDENTIALS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

pub(super) struct Received {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    complete: bool,
}

impl Received {
    pub(super) fn head(response: &Response) -> Self {
        Self {
            status: response.status().as_u16(),
            headers: kept_headers(response.headers()),
            body: Vec::new(),
            complete: false,
        }
    }

    /// Reads the body to its end, or until it is larger than anyone will look at. That is no error:
    /// the receiver has answered, and only talks too much. What is left of it is never read, for its connection
    /// is closed with the response, or its stream where there are several.
    pub(super) async fn read_body(&mut self, response: &mut Response) -> reqwest::Result<()> {
        let mut read = 0;
        while let Some(chunk) = response.chunk().await? {
            read += chunk.len();
            let room = KEPT_BODY - self.body.len();
            self.body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if read > MAX_BODY {
                return Ok(());
            }
        }
        self.complete = read <= KEPT_BODY;
        Ok(())
    }
}

impl From<Received> for ResponseHead {
    fn from(received: Received) -> Self {
        Self {
            status: received.status,
            headers: received.headers,
            body: String::from_utf8_lossy(&received.body).into_owned(),
            truncated: !received.complete,
        }
    }
}

/// What steers the schedule goes first, so that no amount of other headers crowds it out.
fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut all: Vec<_> = headers.iter().collect();
    all.sort_by_key(|(name, _)| !STEERING.contains(&name.as_str()));
    let mut room = KEPT_HEADERS;
    let mut kept = Vec::new();
    for (name, value) in all {
        let value = shown(name.as_str(), value);
        if let Some(left) = room.checked_sub(name.as_str().len() + value.len()) {
            room = left;
            kept.push((name.to_string(), value));
        }
    }
    kept
}

fn shown(name: &str, value: &HeaderValue) -> String {
    if CREDENTIALS.contains(&name) {
        return "[redacted]".to_owned();
    }
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
