//! Where callbacks may go: never into the network this process runs in, unless the configuration says so.
//!
//! A callback's URL comes from outside, so it could name a metadata service or an intranet host
//! (server-side request forgery). The URL is checked when it is handed in, and again at each attempt;
//! a name's addresses are checked where they are resolved for the connection, so that what was checked is
//! what is connected to and a name that changes its mind in between gains nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use http::Uri;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::sync::Semaphore;
use url::{Host, Url};

/// The longest URL that is accepted, in bytes.
pub const MAX_URL_LENGTH: usize = 2048;

/// Look-ups that may run at once. The system's resolver blocks a thread for as long as it likes, also after
/// the attempt's deadline; name servers that never answer must not take every thread the process has for
/// blocking work.
const MAX_LOOKUPS: usize = 64;

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
            allow_networks: vec![net4(127, 0, 0, 0, 8).into(), net6([0, 0, 0, 0, 0, 0, 0, 1], 128).into()],
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
    /// Longer than [`MAX_URL_LENGTH`].
    #[error("the URL is longer than {MAX_URL_LENGTH} bytes")]
    TooLong,
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
            Self::TooLong => "too_long",
            Self::Port => "port",
            Self::Address { reason } => reason,
        }
    }
}

/// A host's name did not lead to addresses that may be called.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It leads to an address that is not allowed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The look-up failed.
    #[error("the host's name could not be looked up")]
    Lookup(#[source] io::Error),
    /// The look-up succeeded and found nothing.
    #[error("the host's name has no address")]
    Empty,
}

/// Decides where callbacks may go. Clones share the policy.
#[derive(Debug, Clone)]
pub struct Guard {
    rules: Arc<Rules>,
    lookups: Arc<Semaphore>,
}

#[derive(Debug)]
struct Rules {
    allow_http: bool,
    networks: Vec<IpNet>,
    names: Vec<String>,
}

impl Guard {
    /// A guard with this policy.
    #[must_use]
    pub fn new(policy: GuardPolicy) -> Self {
        let GuardPolicy { allow_http, allow_networks: mut networks, allow_hosts } = policy;
        let mut names = Vec::new();
        for host in allow_hosts {
            match host.trim_matches(['[', ']']).parse::<IpAddr>() {
                Ok(address) => networks.push(address.into()),
                Err(_) => names.push(without_root_dot(&host).to_owned()),
            }
        }
        let rules = Arc::new(Rules { allow_http, networks, names });
        Self { rules, lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
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
        if text.len() > MAX_URL_LENGTH {
            return Err(Refused::TooLong);
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
        if url.as_str().len() > MAX_URL_LENGTH {
            return Err(Refused::TooLong);
        }
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

    /// Resolves a name. If one of its addresses is forbidden, none is used: an answer that mixes public and
    /// private addresses is an attempt at something.
    ///
    /// # Errors
    ///
    /// The look-up failed, found nothing, or found what is forbidden.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        let addresses = self.look_up(host.to_owned(), port).await.map_err(ResolveError::Lookup)?;
        self.vet(host, addresses)
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

    /// The permit goes with the thread, not with the caller, who may have given up waiting long before.
    async fn look_up(&self, host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let lookup = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
        });
        lookup.await.map_err(io::Error::other)?
    }

    fn vet(&self, host: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ResolveError> {
        if addresses.is_empty() {
            return Err(ResolveError::Empty);
        }
        for address in &addresses {
            self.check_peer(host, address.ip())?;
        }
        Ok(addresses)
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

/// Why an address is not a public one, if it is not.
fn forbidden(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            FORBIDDEN_V4.iter().find(|(net, _)| net.contains(&address)).map(|(_, reason)| *reason)
        }
        IpAddr::V6(address) => forbidden_v6(address),
    }
}

/// IPv6 is allowed by range: what is not global unicast is refused, and so are ranges yet to be assigned.
fn forbidden_v6(address: Ipv6Addr) -> Option<&'static str> {
    let special = FORBIDDEN_V6.iter().find(|(net, _)| net.contains(&address)).map(|(_, reason)| *reason);
    special.or_else(|| (!GLOBAL_UNICAST.contains(&address)).then_some("reserved"))
}

/// The IPv4 address inside an IPv4-mapped, IPv4-compatible or NAT64 address.
fn carried_ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = address.octets();
    let carries = [MAPPED, COMPATIBLE, NAT64].iter().any(|net| net.contains(&address));
    carries.then(|| Ipv4Addr::new(a, b, c, d))
}

const fn net4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn net6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// The IANA special-purpose registry, and the addresses under which clouds answer their guests; these come
/// first, for they lie within other ranges or are public.
const FORBIDDEN_V4: &[(Ipv4Net, &str)] = &[
    (net4(169, 254, 169, 254, 32), "metadata"), // AWS, Azure, Google and others
    (net4(169, 254, 170, 2, 32), "metadata"),   // AWS ECS
    (net4(100, 100, 100, 200, 32), "metadata"), // Alibaba
    (net4(192, 0, 0, 192, 32), "metadata"),     // Oracle
    (net4(168, 63, 129, 16, 32), "metadata"),   // Azure; a public address
    (net4(0, 0, 0, 0, 8), "unspecified"),
    (net4(10, 0, 0, 0, 8), "private"),
    (net4(100, 64, 0, 0, 10), "shared"),
    (net4(127, 0, 0, 0, 8), "loopback"),
    (net4(169, 254, 0, 0, 16), "link_local"),
    (net4(172, 16, 0, 0, 12), "private"),
    (net4(192, 0, 0, 0, 24), "reserved"),
    (net4(192, 0, 2, 0, 24), "documentation"),
    (net4(192, 88, 99, 0, 24), "reserved"), // the 6to4 relays of old
    (net4(192, 168, 0, 0, 16), "private"),
    (net4(198, 18, 0, 0, 15), "benchmarking"),
    (net4(198, 51, 100, 0, 24), "documentation"),
    (net4(203, 0, 113, 0, 24), "documentation"),
    (net4(224, 0, 0, 0, 4), "multicast"),
    (net4(255, 255, 255, 255, 32), "broadcast"),
    (net4(240, 0, 0, 0, 4), "reserved"),
];

const GLOBAL_UNICAST: Ipv6Net = net6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
const MAPPED: Ipv6Net = net6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96);
const COMPATIBLE: Ipv6Net = net6([0, 0, 0, 0, 0, 0, 0, 0], 96);
const NAT64: Ipv6Net = net6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

/// The special ranges within [`GLOBAL_UNICAST`], and those outside it that deserve a name.
const FORBIDDEN_V6: &[(Ipv6Net, &str)] = &[
    (net6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), "metadata"), // AWS
    (net6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), "metadata"),  // Google
    (net6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified"),
    (net6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (MAPPED, "embedded_ipv4"),
    (COMPATIBLE, "embedded_ipv4"),
    (NAT64, "embedded_ipv4"),
    (net6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private"),
    (net6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link_local"),
    (net6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "private"), // site-local, deprecated
    (net6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
    (net6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "reserved"), // protocol assignments, Teredo among them
    (net6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation"),
    (net6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "embedded_ipv4"), // 6to4
    (net6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard::new(GuardPolicy::default())
    }

    fn reason(guard: &Guard, host: &str) -> Option<&'static str> {
        guard.parse(&format!("https://{host}/hook")).err().map(|refused| refused.reason())
    }

    fn allowing(networks: &[&str]) -> Guard {
        let allow_networks = networks.iter().map(|net| net.parse().unwrap()).collect();
        Guard::new(GuardPolicy { allow_networks, ..GuardPolicy::default() })
    }

    /// The ways `inet_aton` and the WHATWG URL standard let one write an IPv4 address.
    fn spellings(address: Ipv4Addr) -> Vec<String> {
        let [a, b, c, d] = address.octets();
        let number = u32::from(address);
        let (low_24, low_16) = (number & 0x00ff_ffff, number & 0xffff);
        let mut all = vec![
            format!("{address}"),
            format!("{number}"),
            format!("{number:#x}"),
            format!("0x{number:08X}"),
            format!("0{number:o}"),
            format!("{a}.{low_24}"),
            format!("{a}.{b}.{low_16}"),
            format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
            format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
            format!("00{a:o}.{b:#x}.{low_16}"),
            format!("{address}").replace('.', "%2e"),
            format!("{address}").replace('.', "。"),
            format!("{a}\u{ff0e}{b}\u{ff61}{c}.{d}"),
        ];
        let fullwidth =
            |c: char| c.to_digit(10).and_then(|digit| char::from_u32(0xff10 + digit)).unwrap_or(c);
        all.push(address.to_string().chars().map(fullwidth).collect());
        all.extend(all.clone().into_iter().map(|spelling| format!("{spelling}.")));
        all
    }

    #[test]
    fn an_address_is_refused_in_every_spelling() {
        for (address, expected) in [
            (Ipv4Addr::new(127, 0, 0, 1), "loopback"),
            (Ipv4Addr::new(169, 254, 169, 254), "metadata"),
            (Ipv4Addr::new(10, 1, 2, 3), "private"),
        ] {
            for spelling in spellings(address) {
                assert_eq!(reason(&guard(), &spelling), Some(expected), "{spelling}");
            }
        }
    }

    #[test]
    fn special_addresses_are_refused() {
        for (host, expected) in [
            ("0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("127.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("100.64.0.1", "shared"),
            ("100.127.255.255", "shared"),
            ("169.254.0.1", "link_local"),
            ("169.254.170.2", "metadata"),
            ("100.100.100.200", "metadata"),
            ("168.63.129.16", "metadata"),
            ("192.0.0.192", "metadata"),
            ("192.0.0.8", "reserved"),
            ("192.0.2.1", "documentation"),
            ("192.88.99.1", "reserved"),
            ("198.18.0.1", "benchmarking"),
            ("198.19.255.255", "benchmarking"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.1", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("[::]", "unspecified"),
            ("[::1]", "loopback"),
            ("[0:0:0:0:0:0:0:1]", "loopback"),
            ("[::ffff:127.0.0.1]", "embedded_ipv4"),
            ("[::ffff:7f00:1]", "embedded_ipv4"),
            ("[::ffff:8.8.8.8]", "embedded_ipv4"),
            ("[::127.0.0.1]", "embedded_ipv4"),
            ("[64:ff9b::169.254.169.254]", "embedded_ipv4"),
            ("[64:ff9b:1::a00:1]", "reserved"),
            ("[2002:7f00:1::]", "embedded_ipv4"),
            ("[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "reserved"),
            ("[2001:1ff::1]", "reserved"),
            ("[2001:db8::1]", "documentation"),
            ("[3fff::1]", "documentation"),
            ("[5f00::1]", "reserved"),
            ("[100::1]", "reserved"),
            ("[4000::1]", "reserved"),
            ("[fc00::1]", "private"),
            ("[fd12:3456::1]", "private"),
            ("[fd00:ec2::254]", "metadata"),
            ("[fd20:ce::254]", "metadata"),
            ("[fe80::1]", "link_local"),
            ("[febf::1]", "link_local"),
            ("[fec0::1]", "private"),
            ("[ff02::1]", "multicast"),
        ] {
            assert_eq!(reason(&guard(), host), Some(expected), "{host}");
        }
    }

    #[test]
    fn public_addresses_pass_up_to_the_edges_of_the_special_ranges() {
        for host in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "[2606:4700:4700::1111]",
            "[2001:200::1]",
            "[2001:db9::1]",
            "[2003::1]",
            "[3ffe:ffff::1]",
            "[3fff:1000::1]",
        ] {
            assert_eq!(reason(&guard(), host), None, "{host}");
        }
    }

    #[test]
    fn what_is_no_callback_url_is_refused() {
        let long = format!("https://example.com/{}", "a".repeat(MAX_URL_LENGTH));
        let grows = format!("https://example.com/{}", " ".repeat(MAX_URL_LENGTH / 2) + "x");
        for (text, expected) in [
            ("", Refused::Syntax),
            ("example.com/hook", Refused::Syntax),
            ("https://exa mple.com/", Refused::Syntax),
            ("https://a..b/", Refused::Syntax),
            ("https://example.com../", Refused::Syntax),
            ("https://./", Refused::Syntax),
            ("https://1.2.3.4.5/", Refused::Syntax),
            ("https://127.0.0.256/", Refused::Syntax),
            ("https://[fe80::1%25eth0]/", Refused::Syntax),
            ("https://example.com:65536/", Refused::Syntax),
            ("https://", Refused::NoHost),
            ("https:///", Refused::NoHost),
            ("http://example.com/", Refused::HttpsRequired),
            ("ftp://example.com/", Refused::Scheme),
            ("file:///etc/passwd", Refused::Scheme),
            ("data:text/plain,x", Refused::Scheme),
            ("https://user@example.com/", Refused::Userinfo),
            ("https://:secret@example.com/", Refused::Userinfo),
            ("https://example.com@127.0.0.1/", Refused::Userinfo),
            ("https://example.com:0/", Refused::Port),
            (long.as_str(), Refused::TooLong),
            (grows.as_str(), Refused::TooLong),
            ("https://127.0.0.1../", Refused::Syntax),
        ] {
            assert_eq!(guard().parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_destination_has_one_spelling() {
        for text in [
            "https://example.com/hook?a=1",
            "HTTPS://EXAMPLE.com:443/hook?a=1#part",
            "https://example.com./hook?a=1",
            " https://ｅｘａｍｐｌｅ.com/hook?a=1\n",
        ] {
            assert_eq!(guard().parse(text).unwrap().as_str(), "https://example.com/hook?a=1", "{text}");
        }
    }

    #[test]
    fn networks_and_literal_hosts_can_be_allowed() {
        let guard = allowing(&["10.0.0.0/8", "fd00::/8", "64:ff9b::/96"]);
        for host in ["10.1.2.3", "0xa010203", "[fd00::1]", "[::ffff:10.1.2.3]", "[64:ff9b::8.8.8.8]"] {
            assert_eq!(reason(&guard, host), None, "{host}");
        }
        for host in ["192.168.0.1", "[::ffff:192.168.0.1]", "[2002:a01:203::]", "169.254.169.254"] {
            assert!(reason(&guard, host).is_some(), "{host}");
        }
        let literals = ["192.168.7.7", "fd01::7", "[fd01::8]"].map(str::to_owned).to_vec();
        let guard = Guard::new(GuardPolicy { allow_hosts: literals, ..GuardPolicy::default() });
        for host in ["192.168.7.7", "[fd01::7]", "[fd01::8]", "[::ffff:192.168.7.7]"] {
            assert_eq!(reason(&guard, host), None, "{host}");
        }
        assert_eq!(reason(&guard, "192.168.7.8"), Some("private"));
    }

    #[test]
    fn development_reaches_this_machine_over_http_and_nothing_else_that_is_private() {
        let guard = Guard::new(GuardPolicy::dev());
        for text in ["http://127.0.0.1:8080/", "http://[::1]:8080/", "https://127.9.9.9/"] {
            assert!(guard.parse(text).is_ok(), "{text}");
        }
        assert_eq!(guard.parse("http://10.0.0.1/"), Err(Refused::Address { reason: "private" }));
        assert_eq!(guard.parse("ftp://127.0.0.1/"), Err(Refused::Scheme));
    }

    fn answer(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 443)).collect()
    }

    #[test]
    fn one_forbidden_address_spoils_an_answer() {
        let guard = guard();
        let public = answer(&["93.184.215.14", "2606:4700:4700::1111"]);
        assert_eq!(guard.vet("example.com", public.clone()).unwrap(), public);
        let mixed = answer(&["93.184.215.14", "10.0.0.1"]);
        let refused = guard.vet("example.com", mixed);
        assert!(matches!(refused, Err(ResolveError::Refused(Refused::Address { reason: "private" }))));
        assert!(matches!(guard.vet("example.com", Vec::new()), Err(ResolveError::Empty)));
    }

    #[test]
    fn an_allowed_name_may_lead_anywhere_and_only_that_name() {
        let allow_hosts = vec!["hooks.internal.".to_owned()];
        let guard = Guard::new(GuardPolicy { allow_hosts, ..GuardPolicy::default() });
        let private = answer(&["10.0.0.1"]);
        for name in ["hooks.internal", "hooks.internal.", "HOOKS.internal"] {
            assert_eq!(guard.vet(name, private.clone()).unwrap(), private, "{name}");
        }
        for name in ["internal", "x.hooks.internal", "hooks.internal.example.com"] {
            assert!(guard.vet(name, private.clone()).is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn names_are_judged_by_what_they_resolve_to() {
        let refused = guard().resolve("localhost", 443).await;
        assert!(matches!(refused, Err(ResolveError::Refused(Refused::Address { reason: "loopback" }))));
        let addresses = Guard::new(GuardPolicy::dev()).resolve("localhost", 443).await.unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 443));
        let unknown = guard().resolve(&"x".repeat(64), 443).await;
        assert!(matches!(unknown, Err(ResolveError::Lookup(_))));
    }
}
