//! One attempt to deliver a callback, bounded in time and memory whatever the receiver does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use reqwest::Response;
use url::{Host, Url};

use self::classify::{Way, cannot_send, explain, is_closed_connection, refusal, timed_out};
use self::client::{Clients, H2_WINDOW, Trust};
pub use self::egress::EgressProxy;
pub use self::fetch::{Download, FetchError};
pub use self::handshake::Grant;
use self::handshake::REQUEST_ORIGIN;
use self::keep_alive::KeepAlive;
use self::phases::Phases;
use self::response::Received;
use super::ed25519::PrivateKey;
use super::guard::{Guard, Refused};
use super::signature::{self, HEADER_ATTEMPT, HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP};
use crate::clock::Stopwatch;
use crate::domain::attempt::Timings;
pub use crate::domain::delivery::{ErrorClass, Failure, ResponseHead};
use crate::domain::secret::SigningSecret;

mod classify;
mod client;
mod egress;
mod fetch;
mod handshake;
mod keep_alive;
mod phases;
mod response;

/// Headers that concern the connection, which is not the callback's, or say where its body ends.
const NOT_CUSTOM: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// How many headers a request has besides, those of the client included.
const OURS: usize = 10;

/// How attempts are made.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// For a whole attempt: look-up, connection, TLS, headers and body.
    pub timeout: Duration,
    /// For the look-up, the connection and TLS alone.
    pub connect_timeout: Duration,
    /// The `User-Agent`.
    pub user_agent: String,
    /// Through which proxy callbacks leave, if not directly.
    pub egress_proxy: Option<EgressProxy>,
}

/// The sender cannot work on this machine or with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// The user agent cannot be a header's value.
    #[error("the user agent contains characters that no header may have")]
    UserAgent(#[from] InvalidHeaderValue),
    /// No receiver could be authenticated.
    #[error(
        "there are no CA certificates; install those of the system (mostly a package named ca-certificates), \
         or name a file of them in SSL_CERT_FILE"
    )]
    NoTrustAnchors(#[source] rustls::Error),
    /// The TLS library has no protocol version in common with its own cryptography.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The HTTP client's settings are contradictory.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// What is sent. The URL may hold a token in its query, so there is no `Debug`.
pub struct Request<'a> {
    /// Where to.
    pub url: &'a Url,
    /// The event's id, the same at every attempt.
    pub id: &'a str,
    /// When this attempt is signed, in Unix seconds.
    pub timestamp: i64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The active secrets; each adds a signature.
    pub secrets: &'a [SigningSecret],
    /// Adds a signature that anyone can verify who has the public key. With no secret and no key the callback does
    /// not verify.
    pub key: Option<&'a PrivateKey>,
    /// Who calls, for a receiver that permitted this name in a [handshake](Sender::handshake).
    pub origin: Option<&'a str>,
    /// The callback's own headers. Those that the sender sets win; those that concern the connection are left out.
    pub headers: &'a HeaderMap,
    /// The JSON that is signed and sent, byte for byte.
    pub body: Bytes,
}

/// What became of an attempt. It succeeded if there is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How long it took.
    pub duration: Duration,
    /// How long its parts took. A part that the deadline cut off, or that failed, counts as far as it went. Of a
    /// request that was repeated, this is the repetition.
    pub timings: Timings,
    /// Who answered; not known behind a proxy.
    pub remote_addr: Option<SocketAddr>,
    /// What was answered, also when the attempt failed. Of the headers 2 KiB, those that steer the schedule
    /// first and credentials struck out; of the body 4 KiB, as text.
    pub response: Option<ResponseHead>,
    /// Why it failed.
    pub error: Option<Failure>,
}

impl Outcome {
    /// Of an attempt that ended before its request was sent.
    #[must_use]
    pub fn failed(duration: Duration, failure: Failure) -> Self {
        let timings = Timings::default();
        Self { duration, timings, remote_addr: None, response: None, error: Some(failure) }
    }
}

/// Makes attempts. Clones share everything.
#[derive(Clone)]
pub struct Sender(Arc<Inner>);

struct Inner {
    clients: Clients,
    guard: Guard,
    keep_alive: KeepAlive,
    timeout: Duration,
    user_agent: HeaderValue,
    proxied: bool,
    trusted: bool,
}

impl Sender {
    /// A sender that goes where `guard` lets it, and keeps connections for nobody else.
    ///
    /// On a machine without CA certificates no receiver can be authenticated. That is an error, except where
    /// the policy allows plain HTTP: there the sender works, and over HTTPS attempts fail as
    /// [`ErrorClass::Tls`].
    ///
    /// # Errors
    ///
    /// The user agent is unusable, or there are no CA certificates.
    pub fn new(guard: Guard, config: &SenderConfig) -> Result<Self, SenderError> {
        let user_agent = HeaderValue::from_str(&config.user_agent)?;
        let trust = Trust::of_the_system(guard.allows_http())?;
        Self::trusting(guard, config, user_agent, &trust)
    }

    /// Where it goes.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.0.guard
    }

    fn trusting(
        guard: Guard,
        config: &SenderConfig,
        user_agent: HeaderValue,
        trust: &Trust,
    ) -> Result<Self, SenderError> {
        Self::with_window(guard, config, user_agent, trust, H2_WINDOW)
    }

    fn with_window(
        guard: Guard,
        config: &SenderConfig,
        user_agent: HeaderValue,
        trust: &Trust,
        h2_window: u32,
    ) -> Result<Self, SenderError> {
        Ok(Self(Arc::new(Inner {
            clients: Clients::new(&guard, config, trust, h2_window)?,
            guard,
            keep_alive: KeepAlive::new(),
            timeout: config.timeout,
            user_agent,
            proxied: config.egress_proxy.is_some(),
            trusted: matches!(trust, Trust::Anchors(_)),
        })))
    }

    /// Makes one attempt. It cannot fail as a function: the outcome says what happened.
    ///
    /// Only a 2xx whose body came to its end within the deadline, or grew past what is read, is a success.
    /// A 2xx whose body stalls or breaks off is not: the receiver was still at work, and may have failed at
    /// it. To repeat does no harm, for receivers know repetitions by their `webhook-id`. Any other status is
    /// final when it comes, whatever happens to the body after it.
    ///
    /// Connections are kept for a short while and used again. A receiver may close one just when a request is on
    /// its way; a request that met this, and no answer, is repeated once on a connection of its own, within the same
    /// deadline.
    pub async fn attempt(&self, request: &Request<'_>) -> Outcome {
        let stopwatch = Stopwatch::start();
        let inner = &*self.0;
        let mut seen = Seen::new();
        let exchange = tokio::time::timeout(inner.timeout, inner.exchange(request, &mut seen)).await;
        let way = inner.way(request.url, &seen.phases);
        let exchange =
            exchange.unwrap_or_else(|_| Err(timed_out(inner.timeout, seen.response.is_some(), way)));
        let refused = seen.response.as_ref().and_then(|received| refusal(received, way));
        Outcome {
            duration: stopwatch.elapsed(),
            timings: seen.phases.timings(seen.response.is_some()),
            remote_addr: seen.remote_addr,
            response: seen.response.map(ResponseHead::from),
            error: refused.or(exchange.err()),
        }
    }
}

impl Inner {
    async fn exchange(&self, request: &Request<'_>, seen: &mut Seen) -> Result<(), Failure> {
        self.guard.check_url(request.url)?;
        if !self.keep_alive.admits(request.url) {
            return self.exchange_over(&self.clients.closing, request, seen).await;
        }
        match self.exchange_over(&self.clients.keeping, request, seen).await {
            Err(_) if seen.met_a_closed_connection => {
                *seen = Seen::new();
                self.exchange_over(&self.clients.closing, request, seen).await
            }
            result => result,
        }
    }

    async fn exchange_over(
        &self,
        client: &reqwest::Client,
        request: &Request<'_>,
        seen: &mut Seen,
    ) -> Result<(), Failure> {
        let mut response = self.respond(client, self.request(request)?, request.url, seen).await?;
        let received = seen.response.insert(Received::head(&response));
        let body = received.read_body(&mut response).await;
        body.map_err(|error| explain(error, self.way(request.url, &seen.phases)))
    }

    /// Up to the head of the answer.
    async fn respond(
        &self,
        client: &reqwest::Client,
        request: reqwest::Request,
        url: &Url,
        seen: &mut Seen,
    ) -> Result<Response, Failure> {
        if self.proxied {
            self.check_name(url, &seen.phases).await?;
        }
        let response = match seen.phases.of_request(client.execute(request)).await {
            Ok(response) => response,
            Err(error) => {
                seen.met_a_closed_connection = seen.phases.reused() && is_closed_connection(&error);
                return Err(explain(error, self.way(url, &seen.phases)));
            }
        };
        self.check_peer(url, &response)?;
        seen.remote_addr = response.remote_addr().filter(|_| !self.proxied);
        Ok(response)
    }

    fn request(&self, request: &Request<'_>) -> Result<reqwest::Request, Failure> {
        let mut sent = reqwest::Request::new(Method::POST, request.url.clone());
        *sent.headers_mut() =
            self.headers(request).map_err(|_| cannot_send("the id or the origin is no header's value"))?;
        *sent.body_mut() = Some(request.body.clone().into());
        Ok(sent)
    }

    fn headers(&self, request: &Request<'_>) -> Result<HeaderMap, InvalidHeaderValue> {
        let Request { id, timestamp, secrets, key, body, .. } = request;
        let signatures = signature::header_with(*key, secrets, id, *timestamp, body);
        let mut headers = request.headers.clone();
        headers.reserve(OURS);
        for name in NOT_CUSTOM {
            headers.remove(name);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        headers.insert(HEADER_ID, HeaderValue::from_str(id)?);
        headers.insert(HEADER_TIMESTAMP, HeaderValue::from(*timestamp));
        headers.insert(HEADER_SIGNATURE, HeaderValue::try_from(signatures)?);
        headers.insert(HEADER_ATTEMPT, HeaderValue::from(request.attempt));
        if let Some(origin) = request.origin {
            headers.insert(REQUEST_ORIGIN, HeaderValue::from_str(origin)?);
        }
        Ok(headers)
    }

    /// The client asks the guard before it connects. A proxy does not, so here the guard is asked before the proxy.
    async fn check_name(&self, url: &Url, phases: &Phases) -> Result<(), Failure> {
        if let Some(Host::Domain(name)) = url.host() {
            phases.of_look_up(self.guard.resolve(name, 0)).await?;
        }
        Ok(())
    }

    /// The last line: should the client ever connect to what was not checked, nothing of the answer is shown.
    fn check_peer(&self, url: &Url, response: &Response) -> Result<(), Refused> {
        match (url.host_str(), response.remote_addr()) {
            (Some(host), Some(peer)) if !self.proxied => self.guard.check_peer(host, peer.ip()),
            _ => Ok(()),
        }
    }

    fn way(&self, url: &Url, phases: &Phases) -> Way {
        Way {
            proxied: self.proxied && phases.requested(),
            tls: url.scheme() == "https",
            connected: phases.connected(),
            tls_began: phases.tls_began(),
            trusted: self.trusted,
        }
    }
}

/// What is known so far. It outlives an exchange that is cut off at the deadline.
struct Seen {
    phases: Arc<Phases>,
    remote_addr: Option<SocketAddr>,
    response: Option<Received>,
    /// The request went out on a kept connection that was closed before it was answered.
    met_a_closed_connection: bool,
}

impl Seen {
    fn new() -> Self {
        Self {
            phases: Arc::new(Phases::new()),
            remote_addr: None,
            response: None,
            met_a_closed_connection: false,
        }
    }
}

#[cfg(test)]
mod tests;
