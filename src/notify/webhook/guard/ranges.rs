//! Which addresses are public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Why an address is not a public one, if it is not.
pub(super) fn forbidden(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => forbidden_v4(address),
        IpAddr::V6(address) => match translated_ipv4(address) {
            Some(address) => forbidden_v4(address),
            None => forbidden_v6(address),
        },
    }
}

/// The IPv4 address that packets to an IPv6 address go to, or would be taken to go to.
pub(super) fn carried_ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let is_written = MAPPED.contains(&address) || COMPATIBLE.contains(&address);
    if is_written { Some(last_four(address)) } else { translated_ipv4(address) }
}

/// Networks without IPv4 reach its hosts through these addresses, so they are what the address within is.
fn translated_ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [_, _, a, b, c, d, ..] = address.octets();
    if NAT64.contains(&address) {
        Some(last_four(address))
    } else {
        SIX_TO_FOUR.contains(&address).then(|| Ipv4Addr::new(a, b, c, d))
    }
}

fn last_four(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

fn forbidden_v4(address: Ipv4Addr) -> Option<&'static str> {
    FORBIDDEN_V4.iter().find(|(net, _)| net.contains(&address)).map(|(_, reason)| *reason)
}

/// IPv6 is allowed by range: what is not global unicast is refused, and so are ranges yet to be assigned.
fn forbidden_v6(address: Ipv6Addr) -> Option<&'static str> {
    let special = FORBIDDEN_V6.iter().find(|(net, _)| net.contains(&address)).map(|(_, reason)| *reason);
    special.or_else(|| (!GLOBAL_UNICAST.contains(&address)).then_some("reserved"))
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
const SIX_TO_FOUR: Ipv6Net = net6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

/// The special ranges within [`GLOBAL_UNICAST`], and those outside it that deserve a name.
const FORBIDDEN_V6: &[(Ipv6Net, &str)] = &[
    (net6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), "metadata"), // AWS
    (net6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), "metadata"),  // Google
    (net6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified"),
    (net6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (MAPPED, "embedded_ipv4"),
    (COMPATIBLE, "embedded_ipv4"),
    (net6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), "discard"),
    (net6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), "segment_routing"),
    (net6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private"),
    (net6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link_local"),
    (net6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "private"), // site-local, deprecated
    (net6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
    (net6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "teredo"),
    (net6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "reserved"), // protocol assignments
    (net6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation"),
    (net6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation"),
];
