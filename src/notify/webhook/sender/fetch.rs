//! Fetching a picture: guarded, resolved and bounded as an attempt is, and handed on piece by piece.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use reqwest::Response;
use url::Url;

use super::classify::{explain, refusal_by_proxy, timed_out};
use super::client::Trust;
use super::{Inner, Seen, Sender, SenderConfig, SenderError};
use crate::clock::Stopwatch;
use crate::domain::attempt::{ErrorClass, Failure};
use crate::notify::webhook::guard::Guard;

/// How much of a picture may be on its way over HTTP/2: with a callback's, a far source would be slow.
const H2_WINDOW: u32 = 1024 * 1024;
/// The types that are read, for sources that have others, too.
const ACCEPT: &str = "image/jpeg, image/png, image/webp, image/gif";

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It may not be fetched from there.
    #[error("{0}")]
    Blocked(String),
    /// No answer came, or it did not come to its end.
    #[error("{}", .0.detail)]
    Failed(Failure),
    /// It is elsewhere, where nobody looks.
    #[error("the source answered {0}, and redirects are not followed")]
    Redirected(u16),
    /// The source does not hand it out now.
    #[error("the source answered {status}")]
    Unavailable {
        /// The status.
        status: u16,
        /// When it may, as the source says.
        retry_after: Option<Duration>,
    },
    /// The source does not hand it out.
    #[error("the source answered {0}, and 200 is expected")]
    Refused(u16),
    /// It is compressed, although that was not asked for.
    #[error("the source answered with Content-Encoding: {0}, and identity was asked for")]
    Encoded(String),
    /// It has more bytes than are taken.
    #[error("the picture exceeds {limit} bytes")]
    TooLarge {
        /// How many are taken.
        limit: u64,
    },
}

impl From<Failure> for FetchError {
    fn from(failure: Failure) -> Self {
        match failure.class {
            ErrorClass::BlockedAddress => Self::Blocked(failure.detail),
            _ => Self::Failed(failure),
        }
    }
}

/// A picture on its way here.
pub struct Download {
    sender: Sender,
    url: Url,
    seen: Seen,
    response: Response,
    watch: Stopwatch,
    limit: u64,
    bytes: u64,
}

impl Sender {
    /// A sender for pictures: the timeout is for the whole of one.
    ///
    /// # Errors
    ///
    /// As those of [`Sender::new`].
    pub fn for_pictures(guard: Guard, config: &SenderConfig) -> Result<Self, SenderError> {
        let user_agent = HeaderValue::from_str(&config.user_agent)?;
        let trust = Trust::of_the_system(guard.allows_http())?;
        Self::with_window(guard, config, user_agent, &trust, H2_WINDOW)
    }

    /// Asks for the picture at `url`, of at most `limit` bytes, whose first must come in `first_byte`. They come as they
    /// are: nothing is decompressed.
    ///
    /// # Errors
    ///
    /// There is no picture, or one that is not taken.
    pub async fn fetch(&self, url: &Url, limit: u64, first_byte: Duration) -> Result<Download, FetchError> {
        let watch = Stopwatch::start();
        let inner = &*self.0;
        let mut seen = Seen::new();
        let within = inner.timeout.min(first_byte);
        let asking = tokio::time::timeout(within, inner.get(url, &mut seen)).await;
        let way = inner.way(url, &seen.phases);
        let response = asking.unwrap_or_else(|_| Err(timed_out(within, false, way)))?;
        if let Some(failure) = refusal_by_proxy(response.status().as_u16(), way) {
            return Err(failure.into());
        }
        check_head(&response, limit)?;
        Ok(Download { sender: self.clone(), url: url.clone(), seen, response, watch, limit, bytes: 0 })
    }
}

impl Inner {
    async fn get(&self, url: &Url, seen: &mut Seen) -> Result<Response, Failure> {
        self.guard.check_url(url)?;
        let mut request = reqwest::Request::new(Method::GET, url.clone());
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        self.respond(&self.clients.closing, request, url, seen).await
    }
}

impl Download {
    /// How many bytes it will have, if the source says so.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    ///
    /// It does not come, not in time, or there is more of it than is taken.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        let inner = &*self.sender.0;
        let way = inner.way(&self.url, &self.seen.phases);
        loop {
            let left = inner.timeout.saturating_sub(self.watch.elapsed());
            // To the timer, what is always there is never late.
            let chunk = match tokio::time::timeout(left, self.response.chunk()).await {
                Ok(chunk) if !left.is_zero() => chunk.map_err(|error| explain(error, way))?,
                _ => return Err(timed_out(inner.timeout, true, way).into()),
            };
            self.bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            if self.bytes > self.limit {
                return Err(FetchError::TooLarge { limit: self.limit });
            }
            if chunk.as_ref().is_none_or(|chunk| !chunk.is_empty()) {
                return Ok(chunk);
            }
        }
    }
}

/// What can be said before any of the picture is read.
fn check_head(response: &Response, limit: u64) -> Result<(), FetchError> {
    let (status, headers) = (response.status(), response.headers());
    let number = status.as_u16();
    match status {
        StatusCode::OK => {}
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            return Err(unavailable(number, headers));
        }
        _ if status.is_server_error() => return Err(unavailable(number, headers)),
        _ if status.is_redirection() => return Err(FetchError::Redirected(number)),
        _ => return Err(FetchError::Refused(number)),
    }
    if let Some(coding) = headers.get_all(header::CONTENT_ENCODING).iter().find(|value| !is_identity(value)) {
        let shown = coding.to_str().unwrap_or_default().chars().take(40).collect();
        return Err(FetchError::Encoded(shown));
    }
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(FetchError::TooLarge { limit });
    }
    Ok(())
}

fn is_identity(coding: &HeaderValue) -> bool {
    let coding = coding.as_bytes().trim_ascii();
    coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
}

/// Of the two forms of `Retry-After` the one in seconds.
fn unavailable(status: u16, headers: &HeaderMap) -> FetchError {
    let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    FetchError::Unavailable { status, retry_after: seconds.map(Duration::from_secs) }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::repeat_with;

    use super::*;
    use crate::notify::webhook::guard::GuardPolicy;

    #[tokio::test]
    async fn the_deadline_holds_although_there_is_always_more() {
        let config = SenderConfig {
            timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_secs(1),
            user_agent: "Darkroom/test".to_owned(),
            egress_proxy: None,
        };
        for chunk in [&b"x"[..], b""] {
            let body = repeat_with(move || Ok::<_, std::io::Error>(Bytes::from_static(chunk)));
            let mut download = Download {
                sender: Sender::for_pictures(Guard::new(GuardPolicy::dev()), &config).unwrap(),
                url: Url::parse("http://127.0.0.1/").unwrap(),
                seen: Seen::new(),
                response: http::Response::new(reqwest::Body::wrap_stream(body)).into(),
                watch: Stopwatch::start(),
                limit: 100_000_000,
                bytes: 0,
            };
            let error = loop {
                match download.next().await {
                    Ok(piece) => assert!(piece.is_some_and(|piece| !piece.is_empty())),
                    Err(error) => break error,
                }
            };
            assert!(matches!(&error, FetchError::Failed(failure) if failure.class == ErrorClass::Timeout));
        }
    }
}
