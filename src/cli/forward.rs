//! Handing a received callback on, as it came.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use reqwest::{Client, StatusCode};
use url::Url;

use super::client;
use super::error::CliError;

/// Shorter than the receiver's own deadline, so that its sender gets an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What belongs to one connection only (RFC 9110, section 7.6.1), and what the client sets itself.
const NOT_HANDED_ON: [HeaderName; 9] =
    [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// Where callbacks are handed on to.
pub(super) struct Forward {
    client: Client,
    url: Url,
}

impl Forward {
    pub(super) fn to(url: Url) -> Result<Self, CliError> {
        Ok(Self { client: client::for_url(&url)?, url })
    }

    /// The other receiver's status, or 502 and 504 as a gateway says them (RFC 9110, section 15.6).
    pub(super) async fn send(&self, headers: &HeaderMap, body: Bytes) -> StatusCode {
        let mut headers = headers.clone();
        for name in &NOT_HANDED_ON {
            headers.remove(name);
        }
        let request = self.client.post(self.url.clone()).timeout(TIMEOUT).headers(headers).body(body);
        match request.send().await {
            Ok(response) => response.status(),
            Err(error) if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
            Err(_) => StatusCode::BAD_GATEWAY,
        }
    }
}
