//! Asking a receiver whether it wants callbacks, as CloudEvents' abuse protection defines it.

use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};
use http::{HeaderName, Method};
use url::Url;

use super::classify::{cannot_send, failure, timed_out};
use super::{Inner, Seen, Sender};
use crate::domain::attempt::{ErrorClass, Failure};

/// Who calls: a DNS name.
pub(super) const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// A receiver's permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// How many callbacks a minute it takes; `None`: as many as there are.
    pub rate_per_minute: Option<u32>,
}

impl Sender {
    /// Asks the receiver at `url` whether `origin`, a DNS name of this service, may send callbacks there, at `rate`
    /// per minute if given. It is guarded and bounded as an attempt is; of the answer the headers alone are read.
    ///
    /// # Errors
    ///
    /// The receiver cannot be asked, or did not permit it.
    pub async fn handshake(
        &self,
        url: &Url,
        origin: &str,
        rate: Option<u32>,
        timeout: Duration,
    ) -> Result<Grant, Failure> {
        let inner = &*self.0;
        let mut seen = Seen::new();
        let asking = tokio::time::timeout(timeout, inner.ask(url, origin, rate, &mut seen)).await;
        asking.unwrap_or_else(|_| Err(timed_out(timeout, false, inner.way(url, &seen.phases))))
    }
}

impl Inner {
    async fn ask(
        &self,
        url: &Url,
        origin: &str,
        rate: Option<u32>,
        seen: &mut Seen,
    ) -> Result<Grant, Failure> {
        self.guard.check_url(url)?;
        let mut request = reqwest::Request::new(Method::OPTIONS, url.clone());
        let value =
            HeaderValue::from_str(origin).map_err(|_| cannot_send("the origin is no header's value"))?;
        request.headers_mut().insert(REQUEST_ORIGIN, value);
        if let Some(rate) = rate {
            request.headers_mut().insert(REQUEST_RATE, rate.into());
        }
        let response = self.respond(&self.clients.closing, request, url, seen).await?;
        grant(response.headers(), origin).ok_or_else(|| {
            let status = response.status().as_u16();
            failure(
                ErrorClass::Http,
                &format!("the receiver answered {status} and did not permit callbacks from {origin}"),
            )
        })
    }
}

/// The status does not matter: receivers that know nothing of this may answer `OPTIONS` with anything.
fn grant(headers: &HeaderMap, origin: &str) -> Option<Grant> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let allowed = text(ALLOWED_ORIGIN)?;
    let rate = text(ALLOWED_RATE)?;
    if allowed != "*" && !allowed.eq_ignore_ascii_case(origin) {
        return None;
    }
    match rate {
        "*" => Some(Grant { rate_per_minute: None }),
        rate => rate.parse().ok().filter(|rate| *rate > 0).map(|rate| Grant { rate_per_minute: Some(rate) }),
    }
}
