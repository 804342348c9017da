//! The HTTP client of the commands: bounded in time, and not led astray.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use url::{Host, Url};

use super::error::CliError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Also what names this program to servers.
pub(super) const USER_AGENT: &str = concat!("Darkroom/", env!("CARGO_PKG_VERSION"));

/// A client for requests to `url`. Each request has its own time-out.
pub(super) fn for_url(url: &Url) -> Result<Client, CliError> {
    // The service does not redirect, and a token must not follow a redirect elsewhere.
    let builder =
        Client::builder().user_agent(USER_AGENT).connect_timeout(CONNECT_TIMEOUT).redirect(Policy::none());
    // A proxy from the environment would look for loopback on its own machine.
    let builder = if is_loopback(url) { builder.no_proxy() } else { builder };
    builder.build().map_err(|error| CliError::request(&error, url))
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read(mut response: Response, limit: u64, url: &Url) -> Result<Vec<u8>, CliError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| CliError::request(&error, url))? {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > limit {
            return Err(CliError::BadAnswer {
                url: url.clone(),
                problem: format!("it exceeds {limit} bytes"),
            });
        }
    }
    Ok(body)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_several_names() {
        for url in [
            "http://127.0.0.1:1",
            "http://127.9.9.9",
            "http://[::1]:1",
            "http://localhost",
            "http://a.localhost",
        ] {
            assert!(is_loopback(&url.parse().unwrap()), "{url}");
        }
        for url in ["http://128.0.0.1", "http://[::2]", "http://localhost.example"] {
            assert!(!is_loopback(&url.parse().unwrap()), "{url}");
        }
    }
}
