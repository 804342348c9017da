//! What kind of failure an error is, and whose.

use std::error::Error;
use std::{io, iter};

use super::response::Received;
use crate::domain::attempt::{ErrorClass, Failure, Fault};
use crate::notify::webhook::guard::{Refused, ResolveError};

/// How long the explanation of a failure may be, in characters.
const MAX_DETAIL: usize = 200;
/// The process, or the whole system, has no file descriptor left; the standard library has no name for them.
const OUT_OF_FILES: [i32; 2] = [24, 23];

/// What is known about the way on which an exchange failed.
#[derive(Clone, Copy)]
pub(super) struct Way {
    /// It leads through the egress proxy, and has come that far.
    pub(super) proxied: bool,
    /// The receiver is spoken to over TLS, so the proxy only sees to the connection.
    pub(super) tls: bool,
    /// A connection stands, be it only to the proxy.
    pub(super) connected: bool,
    /// The receiver's TLS handshake has begun, so the connection to the receiver stands.
    pub(super) tls_began: bool,
    /// There are CA certificates.
    pub(super) trusted: bool,
}

impl Way {
    /// Whether what failed is the way to the proxy, or what the proxy has to do.
    fn ends_at_the_proxy(self) -> bool {
        self.proxied && !self.connected && !self.tls_began
    }
}

pub(super) fn failure(class: ErrorClass, detail: &str) -> Failure {
    // A peer may have had a say in the text: a certificate's names, for example.
    let detail: String = detail.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
    Failure::new(class, detail)
}

/// What cannot be sent is our own fault, and nobody was asked.
pub(super) fn cannot_send(detail: &str) -> Failure {
    Failure { fault: Fault::Service, ..failure(ErrorClass::Protocol, detail) }
}

/// Why a complete head is a failure, if it is one.
pub(super) fn refusal(received: &Received, way: Way) -> Option<Failure> {
    let status = received.status;
    match status {
        200..300 => None,
        300..400 => Some(failure(
            ErrorClass::Redirect,
            &format!("the receiver answered {status}, and redirects are not followed"),
        )),
        _ => Some(
            refusal_by_proxy(status, way)
                .unwrap_or_else(|| failure(ErrorClass::Http, &format!("the receiver answered {status}"))),
        ),
    }
}

/// Why an answer is the proxy's and not the receiver's, if it is.
pub(super) fn refusal_by_proxy(status: u16, way: Way) -> Option<Failure> {
    let detail = "the egress proxy answered 407: it does not accept our credentials";
    let is_its = status == 407 && way.proxied && !way.tls;
    is_its.then(|| Failure { fault: Fault::Proxy, ..failure(ErrorClass::Http, detail) })
}

/// The deadline passed.
pub(super) fn timed_out(after: std::time::Duration, answered: bool, way: Way) -> Failure {
    let what = if answered { "the response did not end" } else { "no response" };
    let failure = failure(ErrorClass::Timeout, &format!("{what} within {after:?}"));
    if way.ends_at_the_proxy() { Failure { fault: Fault::Proxy, ..failure } } else { failure }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        failure(ErrorClass::BlockedAddress, &refused.to_string())
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        let class = class_of_look_up(&error);
        let cause = causes(&error).last().map(ToString::to_string).unwrap_or_default();
        let failure = failure(class, &cause);
        if is_ours(&error) { Failure { fault: Fault::Service, ..failure } } else { failure }
    }
}

/// Explains what the client reports. The URL may hold a token, and is left out.
pub(super) fn explain(error: reqwest::Error, way: Way) -> Failure {
    let error = error.without_url();
    let class = classify(&error);
    let cause = || causes(&error).last().map(ToString::to_string).unwrap_or_default();
    if class == ErrorClass::Timeout && error.is_connect() {
        let failure = failure(class, "no connection was made in time");
        return if way.ends_at_the_proxy() { Failure { fault: Fault::Proxy, ..failure } } else { failure };
    }
    if is_ours(&error) {
        return Failure { fault: Fault::Service, ..failure(class, &cause()) };
    }
    if way.ends_at_the_proxy() {
        let detail = format!("through the egress proxy: {}", cause());
        return Failure { fault: Fault::Proxy, ..failure(ErrorClass::Connect, &detail) };
    }
    // Without TLS it is the proxy that we speak HTTP with.
    if way.proxied
        && !way.tls
        && matches!(class, ErrorClass::Reset | ErrorClass::Protocol | ErrorClass::TooLarge)
    {
        return Failure { fault: Fault::Proxy, ..failure(class, &cause()) };
    }
    if !way.trusted
        && find::<rustls::Error>(&error).any(|tls| matches!(tls, rustls::Error::InvalidCertificate(_)))
    {
        let detail = "no certificate can be verified, for there are no CA certificates on this machine";
        return Failure { fault: Fault::Service, ..failure(class, detail) };
    }
    failure(class, &cause())
}

/// Whether this machine could not even try: no descriptors, memory or ports, no network, no route from here, or a
/// firewall of its own.
fn is_ours(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind as Kind;
    find::<io::Error>(error).any(|io| {
        let kind = io.kind();
        let here = [Kind::NetworkUnreachable, Kind::NetworkDown, Kind::AddrNotAvailable];
        here.contains(&kind)
            || [Kind::PermissionDenied, Kind::OutOfMemory].contains(&kind)
            || io.raw_os_error().is_some_and(|code| OUT_OF_FILES.contains(&code))
    })
}

/// The error and everything beneath it. An `io::Error` leaves the error it wraps out of its sources.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e E> {
    causes(error).filter_map(|cause| cause.downcast_ref())
}

fn class_of_look_up(error: &ResolveError) -> ErrorClass {
    match error {
        ResolveError::Refused(_) => ErrorClass::BlockedAddress,
        ResolveError::Lookup(_) | ResolveError::Empty => ErrorClass::Dns,
    }
}

fn classify(error: &reqwest::Error) -> ErrorClass {
    if let Some(unresolved) = find::<ResolveError>(error).next() {
        return class_of_look_up(unresolved);
    }
    if error.is_timeout() {
        return ErrorClass::Timeout;
    }
    find::<h2::Error>(error)
        .find_map(classify_http2)
        .or_else(|| find::<hyper::Error>(error).find_map(classify_http))
        .or_else(|| find::<io::Error>(error).last().and_then(|io| classify_io(io.kind(), error)))
        .unwrap_or_else(|| unexplained(error))
}

/// Whether the connection was closed or broke, and not a single request on it.
pub(super) fn is_closed_connection(error: &reqwest::Error) -> bool {
    classify(error) == ErrorClass::Reset && !find::<h2::Error>(error).any(h2::Error::is_reset)
}

/// What this side ended, the receiver did wrong; "calm" is how the protocol says "too much".
fn classify_http2(error: &h2::Error) -> Option<ErrorClass> {
    if error.is_remote() {
        Some(ErrorClass::Reset)
    } else if error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) {
        Some(ErrorClass::TooLarge)
    } else {
        error.reason().map(|_| ErrorClass::Protocol)
    }
}

fn classify_http(error: &hyper::Error) -> Option<ErrorClass> {
    if error.is_parse_too_large() {
        Some(ErrorClass::TooLarge)
    } else if error.is_parse() {
        Some(ErrorClass::Protocol)
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        Some(ErrorClass::Reset)
    } else {
        None
    }
}

/// TLS reports what it cannot accept as invalid data, and an end in the middle of its handshake as an
/// unexpected end; a TCP connection attempt knows neither. In a body they speak of its framing.
fn classify_io(kind: io::ErrorKind, error: &reqwest::Error) -> Option<ErrorClass> {
    use io::ErrorKind as Kind;
    match kind {
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Some(ErrorClass::Reset),
        Kind::InvalidData if error.is_request() => Some(ErrorClass::Tls),
        Kind::UnexpectedEof if error.is_connect() => Some(ErrorClass::Tls),
        Kind::UnexpectedEof => Some(ErrorClass::Reset),
        Kind::InvalidData | Kind::InvalidInput => Some(ErrorClass::Protocol),
        _ => None,
    }
}

/// Without a known cause the phase decides; over HTTP/2 a body ends this way when its stream is reset.
fn unexplained(error: &reqwest::Error) -> ErrorClass {
    if error.is_connect() {
        ErrorClass::Connect
    } else if error.is_decode() {
        ErrorClass::Reset
    } else {
        ErrorClass::Protocol
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unresolved(source: io::Error) -> Failure {
        ResolveError::Lookup(source).into()
    }

    #[test]
    fn what_this_machine_lacks_is_our_own_fault() {
        for code in OUT_OF_FILES {
            let wrapped = io::Error::other(io::Error::from_raw_os_error(code));
            assert_eq!(unresolved(wrapped).fault, Fault::Service, "{code}");
        }
        for (kind, expected) in [
            (io::ErrorKind::NetworkUnreachable, Fault::Service),
            (io::ErrorKind::AddrNotAvailable, Fault::Service),
            (io::ErrorKind::PermissionDenied, Fault::Service),
            // Some router on the way says so, maybe the receiver's own.
            (io::ErrorKind::HostUnreachable, Fault::Receiver),
            (io::ErrorKind::ConnectionRefused, Fault::Receiver),
        ] {
            let failure = unresolved(kind.into());
            assert_eq!((failure.class, failure.fault), (ErrorClass::Dns, expected), "{kind}");
        }
    }

    #[test]
    fn an_explanation_is_short_and_has_no_control_characters() {
        let detail = failure(ErrorClass::Tls, &format!("a\r\n\u{1b}[31m{}", "x".repeat(1000))).detail;
        assert!(detail.starts_with("a[31mx") && detail.len() == MAX_DETAIL, "{detail}");
    }
}
