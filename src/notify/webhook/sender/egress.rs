//! An HTTP proxy between this network and the receivers.

use std::fmt;

use reqwest::Proxy;
use rustls::pki_types::ServerName;
use url::Url;

/// The proxy through which all callbacks leave. Its URL may hold a password, so `Debug` shows the host alone.
///
/// The guard looks each receiver's name up and checks all its addresses before the proxy is asked; the proxy's own
/// address is the operator's choice, and is not checked. What remains is that the proxy looks the name up once more,
/// and a name that changes its mind in between leads the proxy where the guard would not go: a proxy that reaches
/// private addresses needs rules of its own against them.
#[derive(Clone, PartialEq, Eq)]
pub struct EgressProxy(Url);

/// The URL names an `http` or `https` proxy, as the configuration has checked.
impl From<Url> for EgressProxy {
    fn from(url: Url) -> Self {
        Self(url)
    }
}

impl EgressProxy {
    /// Receivers with and without TLS; none is left out.
    pub(super) fn for_all(&self) -> reqwest::Result<Proxy> {
        Proxy::all(self.0.clone())
    }

    /// Whom the TLS handshake with the proxy itself is for.
    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        let host = self.0.host_str()?.trim_matches(['[', ']']).to_owned();
        ServerName::try_from(host).ok()
    }
}

impl fmt::Debug for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EgressProxy({})", self.0.host_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let url = Url::parse("http://user:pa55word@proxy.internal:3128").unwrap();
        assert_eq!(format!("{:?}", EgressProxy::from(url)), "EgressProxy(proxy.internal)");
    }
}
