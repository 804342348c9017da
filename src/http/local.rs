//! Who may ask in development: programs of this machine, and pages that it serves itself.
//!
//! `--dev` asks for no key, and listening on loopback alone keeps no web page out: a page can post a form to
//! any address, and by a name that first leads to its own server and then to 127.0.0.1 (DNS rebinding) read
//! the answers. Such requests name a foreign `Host` or a foreign `Origin`.

use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::{Either, Ready, ready};
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Request, Uri};
use tower::Service;
use url::{Host, Url};
use warp::reply::Response;

use super::problem::{Code, Problem};

/// The layer around `inner`.
#[derive(Clone)]
pub(super) struct LocalOnly<S> {
    inner: S,
    /// `None` lets everyone through.
    rule: Option<Rule>,
}

impl<S> LocalOnly<S> {
    /// With a base URL, only this machine and that URL's host are let through.
    pub(super) fn new(inner: S, base_url: Option<&String>) -> Self {
        let rule = base_url.map(|url| Rule { own_host: Url::parse(url).ok().and_then(|url| host(&url)) });
        Self { inner, rule }
    }
}

impl<S, B> Service<Request<B>> for LocalOnly<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.rule.as_ref().map_or(Ok(()), |rule| rule.check(request.uri(), request.headers())) {
            Ok(()) => self.inner.call(request).right_future(),
            Err(what) => {
                let detail = format!(
                    "{what} is not this machine; only requests to and from localhost are answered here"
                );
                let problem = Problem::of(Code::NotLocal).with_detail(detail);
                ready(Ok(problem.into())).left_future()
            }
        }
    }
}

#[derive(Clone)]
struct Rule {
    own_host: Option<Host>,
}

impl Rule {
    /// The error is what names another machine.
    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
        let local_authority = |authority: &Authority| {
            Url::parse(&format!("http://{authority}")).is_ok_and(|url| self.is_local(&url))
        };
        // HTTP/2 and absolute request targets have it in the URI.
        let named = uri.authority().is_none_or(local_authority)
            && headers.get_all(HOST).iter().all(|value| {
                Authority::try_from(value.as_bytes()).is_ok_and(|authority| local_authority(&authority))
            });
        if !named {
            return Err("Host");
        }
        // Programs send none. `null`, which sandboxed pages and files send, is no URL.
        let from_here = headers.get_all(ORIGIN).iter().all(|value| {
            let origin = value.to_str().ok().and_then(|text| Url::parse(text).ok());
            origin.is_some_and(|origin| self.is_local(&origin))
        });
        if from_here { Ok(()) } else { Err("Origin") }
    }

    fn is_local(&self, url: &Url) -> bool {
        let Some(host) = host(url) else { return false };
        let is_loopback = match &host {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => IpAddr::from(*address).to_canonical().is_loopback(),
        };
        is_loopback || self.own_host.as_ref() == Some(&host)
    }
}

fn host(url: &Url) -> Option<Host> {
    url.host().map(|host| host.to_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(base_url: &str, uri: &str, headers: &[(http::HeaderName, &str)]) -> Result<(), &'static str> {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        let local = LocalOnly::new((), Some(&base_url.to_owned()));
        local.rule.unwrap().check(&uri.parse().unwrap(), &headers.collect())
    }

    #[test]
    fn this_machine_has_several_names() {
        for host in ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:80", "127.1.2.3", "[::1]:8080"]
        {
            assert_eq!(check("", "/", &[(HOST, host)]), Ok(()), "{host}");
            assert_eq!(check("", "/", &[(ORIGIN, &format!("http://{host}"))]), Ok(()), "{host}");
            assert_eq!(check("", &format!("http://{host}/"), &[]), Ok(()), "{host}");
        }
        assert_eq!(check("", "/", &[]), Ok(()));
    }

    #[test]
    fn others_are_refused_wherever_they_are_named() {
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "[::2]"]
        {
            assert_eq!(check("", "/", &[(HOST, host)]), Err("Host"), "{host}");
            assert_eq!(check("", "/", &[(HOST, "localhost"), (HOST, host)]), Err("Host"), "{host}");
            assert_eq!(check("", &format!("http://{host}/"), &[(HOST, "localhost")]), Err("Host"), "{host}");
            assert_eq!(check("", "/", &[(ORIGIN, &format!("https://{host}"))]), Err("Origin"), "{host}");
        }
        assert_eq!(check("", "/", &[(HOST, "")]), Err("Host"));
        for origin in ["null", "", "file://", "chrome-extension://abc"] {
            assert_eq!(check("", "/", &[(HOST, "localhost"), (ORIGIN, origin)]), Err("Origin"), "{origin}");
        }
    }

    #[test]
    fn the_public_name_is_let_through() {
        let base = "https://img.example/darkroom";
        assert_eq!(check(base, "/", &[(HOST, "img.example"), (ORIGIN, "https://IMG.example:444")]), Ok(()));
        assert_eq!(check(base, "/", &[(HOST, "img.example.org")]), Err("Host"));
    }
}
