//! Where callbacks may go: never into the network this process runs in, unless the configuration says so.
//!
//! A callback's URL comes from outside, so it could name a metadata service or an intranet host
//! (server-side request forgery). The URL is checked when it is handed in, and again at each attempt;
//! a name's addresses are checked where they are resolved for the connection, so that what was checked is
//! what is connected to and a name that changes its mind in between gains nothing.

use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;
use ipnet::IpNet;
use url::{Host, Url};

use self::ranges::{carried_ipv4, forbidden};
pub use self::resolve::ResolveError;
use self::resolve::Resolver;

mod ranges;
mod resolve;

/// The longest URL of a callback that is accepted, in bytes.
pub const MAX_URL_LENGTH: usize = 2048;
/// The same of a source: signed URLs may hold a whole session token.
pub const MAX_SOURCE_URL_LENGTH: usize = 8 * 1024;

/// Where callbacks may go, beyond public addresses over HTTPS.
#[derive(Debug, Clone, Default)]
pub struct GuardPolicy {
    /// Also plain HTTP.
    pub allow_http: bool,
    /// Addresses that are allowed although they are not public.
    pub allow_networks: Vec<IpNet>,
    /// Names, in lower case, that are allowed whatever they resolve to; and literal addresses.
    pub allow_hosts: Vec<String>,
}

impl GuardPolicy {
    /// What `--dev` allows: HTTP, and callbacks to this machine.
    #[cfg(test)]
    pub(crate) fn dev() -> Self {
        Self {
            allow_http: true,
            allow_networks: ["127.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap()).to_vec(),
            allow_hosts: Vec::new(),
        }
    }
}

/// A callback that may not go where its URL points.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a URL, or not one that can be requested.
    #[error("not a valid URL")]
    Syntax,
    /// Neither `https` nor `http`.
    #[error("only https URLs are accepted")]
    Scheme,
    /// `http` where the policy asks for TLS.
    #[error("plain http is not allowed here, use https")]
    HttpsRequired,
    /// A user name or a password in the URL; they would be stored, shown and logged with it.
    #[error("the URL must not contain a user name or a password")]
    Userinfo,
    /// No host to call.
    #[error("the URL has no host")]
    NoHost,
    /// Too long.
    #[error("the URL is longer than {limit} bytes")]
    TooLong {
        /// How long it may be.
        limit: usize,
    },
    /// Port zero.
    #[error("port 0 cannot be connected to")]
    Port,
    /// An address that is not public.
    #[error("the host's address is not allowed ({reason})")]
    Address {
        /// What kind of address it is, `private` for example.
        reason: &'static str,
    },
}

impl Refused {
    /// A stable code for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Scheme => "scheme",
            Self::HttpsRequired => "https_required",
            Self::Userinfo => "userinfo",
            Self::NoHost => "no_host",
            Self::TooLong { .. } => "too_long",
            Self::Port => "port",
            Self::Address { reason } => reason,
        }
    }
}

/// Decides where callbacks may go. Clones share the policy.
#[derive(Debug, Clone)]
pub struct Guard {
    rules: Arc<Rules>,
    resolver: Resolver,
}

#[derive(Debug)]
struct Rules {
    allow_http: bool,
    networks: Vec<IpNet>,
    names: Vec<String>,
    max_url_length: usize,
}

impl Guard {
    /// A guard of callbacks with this policy.
    #[must_use]
    pub fn new(policy: GuardPolicy) -> Self {
        Self::of(policy, MAX_URL_LENGTH)
    }

    /// A guard of sources.
    #[must_use]
    pub fn for_sources(policy: GuardPolicy) -> Self {
        Self::of(policy, MAX_SOURCE_URL_LENGTH)
    }

    fn of(policy: GuardPolicy, max_url_length: usize) -> Self {
        let GuardPolicy { allow_http, allow_networks: mut networks, allow_hosts } = policy;
        let mut names = Vec::new();
        for host in allow_hosts {
            match host.trim_matches(['[', ']']).parse::<IpAddr>() {
                Ok(address) => networks.push(address.into()),
                Err(_) => names.push(without_root_dot(&host).to_owned()),
            }
        }
        let rules = Arc::new(Rules { allow_http, networks, names, max_url_length });
        Self { rules, resolver: Resolver::new() }
    }

    /// Whether callbacks may go out without TLS.
    #[must_use]
    pub fn allows_http(&self) -> bool {
        self.rules.allow_http
    }

    /// Reads and checks a URL. The fragment, which is never sent, and the root dot of a name are left out,
    /// so that a destination has one spelling.
    ///
    /// # Errors
    ///
    /// Says why no callback may go there.
    pub fn parse(&self, text: &str) -> Result<Url, Refused> {
        self.check_length(text)?;
        // The parser leaves tabs and line feeds out, and so would ask for another resource than was written.
        if text.trim().contains(char::is_control) {
            return Err(Refused::Syntax);
        }
        let mut url = Url::parse(text).map_err(|error| match error {
            url::ParseError::EmptyHost => Refused::NoHost,
            _ => Refused::Syntax,
        })?;
        self.check_url(&url)?;
        url.set_fragment(None);
        if let Some(name) = url.domain().and_then(|name| name.strip_suffix('.')).map(str::to_owned) {
            url.set_host(Some(&name)).map_err(|_| Refused::Syntax)?;
        }
        Ok(url)
    }

    /// Checks everything about a URL that can be known without asking the network.
    ///
    /// The parser has read literal addresses in all their spellings (decimal, octal, hexadecimal, short,
    /// full-width), so `host` holds an address for each of them. They are decided here, for the
    /// HTTP client connects to literals without asking a resolver.
    ///
    /// # Errors
    ///
    /// Says why no callback may go there.
    pub fn check_url(&self, url: &Url) -> Result<(), Refused> {
        match url.scheme() {
            "https" => {}
            "http" if self.rules.allow_http => {}
            "http" => return Err(Refused::HttpsRequired),
            _ => return Err(Refused::Scheme),
        }
        self.check_length(url.as_str())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Userinfo);
        }
        if url.port() == Some(0) {
            return Err(Refused::Port);
        }
        // A few characters pass in a URL and not in a request line; say so now, not at the first attempt.
        if Uri::try_from(url.as_str()).is_err() {
            return Err(Refused::Syntax);
        }
        match url.host() {
            None => Err(Refused::NoHost),
            Some(Host::Ipv4(address)) => self.check_address(address.into()),
            Some(Host::Ipv6(address)) => self.check_address(address.into()),
            Some(Host::Domain(name)) => check_labels(name),
        }
    }

    /// Decides about one address.
    ///
    /// # Errors
    ///
    /// The address is not public, and not allowed by the policy.
    pub fn check_address(&self, address: IpAddr) -> Result<(), Refused> {
        if self.allows_address(address) {
            return Ok(());
        }
        forbidden(address).map_or(Ok(()), |reason| Err(Refused::Address { reason }))
    }

    /// Decides about the address at the other end of a connection that was made for `host`.
    pub(super) fn check_peer(&self, host: &str, peer: IpAddr) -> Result<(), Refused> {
        if self.allows_name(host) { Ok(()) } else { self.check_address(peer) }
    }

    fn check_length(&self, url: &str) -> Result<(), Refused> {
        let limit = self.rules.max_url_length;
        if url.len() > limit { Err(Refused::TooLong { limit }) } else { Ok(()) }
    }

    fn allows_name(&self, host: &str) -> bool {
        let host = without_root_dot(host);
        self.rules.names.iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    /// An IPv6 address that carries an IPv4 address leads to that, so the networks are asked about both.
    fn allows_address(&self, address: IpAddr) -> bool {
        let carried = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => carried_ipv4(address).map(IpAddr::V4),
        };
        let is_allowed = |address: &IpAddr| self.rules.networks.iter().any(|net| net.contains(address));
        is_allowed(&address) || carried.as_ref().is_some_and(is_allowed)
    }
}

fn without_root_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

fn check_labels(name: &str) -> Result<(), Refused> {
    if without_root_dot(name).split('.').any(str::is_empty) { Err(Refused::Syntax) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
