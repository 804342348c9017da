use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

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
    let fullwidth = |c: char| c.to_digit(10).and_then(|digit| char::from_u32(0xff10 + digit)).unwrap_or(c);
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
        ("[64:ff9b::169.254.169.254]", "metadata"),
        ("[64:ff9b:1::a00:1]", "reserved"),
        ("[2002:7f00:1::]", "loopback"),
        ("[2002:a9fe:a9fe::1]", "metadata"),
        ("[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "teredo"),
        ("[2001:1ff::1]", "reserved"),
        ("[2001:db8::1]", "documentation"),
        ("[3fff::1]", "documentation"),
        ("[5f00::1]", "segment_routing"),
        ("[100::1]", "discard"),
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
        "[64:ff9b::8.8.8.8]",
        "[2002:808:808::1]",
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
        ("https://example.com/a\nb", Refused::Syntax),
        ("https://example.com/\ta", Refused::Syntax),
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
        (long.as_str(), Refused::TooLong { limit: MAX_URL_LENGTH }),
        (grows.as_str(), Refused::TooLong { limit: MAX_URL_LENGTH }),
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
    for host in
        ["10.1.2.3", "0xa010203", "[fd00::1]", "[::ffff:10.1.2.3]", "[64:ff9b::8.8.8.8]", "[2002:a01:203::]"]
    {
        assert_eq!(reason(&guard, host), None, "{host}");
    }
    for host in ["192.168.0.1", "[::ffff:192.168.0.1]", "[2002:c0a8:1::]", "169.254.169.254"] {
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

/// Hosts that have got past other senders: every spelling of a forbidden address that a published case had, and the
/// forms that a check by prefix or by the standard library's predicates misses.
#[test]
fn hosts_that_got_past_others_are_refused() {
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0177.0.0.1",
        "0x7f.0x0.0x0.0x1",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "0",
        "0.0.0.0",
        "１２７.0.0.1",
        "%31%32%37.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "100.100.100.200",
        "168.63.129.16",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[fc00::1]",
    ] {
        let refused = guard().parse(&format!("https://{host}/"));
        assert!(matches!(refused, Err(Refused::Address { .. })), "{host}: {refused:?}");
    }
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_refused_from_then_on() {
    let asked = AtomicUsize::new(0);
    let guard = Guard::with_names(GuardPolicy::default(), move |_| {
        let public = asked.fetch_add(1, Ordering::Relaxed) == 0;
        let address = if public { Ipv4Addr::new(93, 184, 215, 14) } else { Ipv4Addr::LOCALHOST };
        vec![address.into()]
    });
    assert!(guard.resolve("example.com", 443).await.is_ok());
    let refused = guard.resolve("example.com", 443).await;
    assert!(matches!(refused, Err(ResolveError::Refused(Refused::Address { reason: "loopback" }))));
}

/// An address as `inet_aton` reads it: in one to four parts, each in one of three radices, the last one filling up
/// what is left. Then some characters are written in another way that URLs allow.
fn spelled(address: Ipv4Addr, parts: usize, radices: [u8; 4], disguises: &[u8], root_dot: bool) -> String {
    let octets = address.octets();
    let last = octets[parts - 1..].iter().fold(0_u32, |number, octet| (number << 8) | u32::from(*octet));
    let numbers = octets[..parts - 1].iter().map(|octet| u32::from(*octet)).chain([last]);
    let plain: Vec<_> = numbers
        .zip(radices)
        .map(|(number, radix)| match radix % 5 {
            0 => format!("{number}"),
            1 => format!("{number:#x}"),
            2 => format!("0X{number:010X}"),
            3 => format!("0{number:o}"),
            _ => format!("000{number:o}"),
        })
        .collect();
    let disguise = |(at, c): (usize, char)| match (disguises[at % disguises.len()] % 6, c) {
        (0, _) => format!("%{:02x}", u32::from(c)),
        (1, _) => format!("%{:02X}", u32::from(c)),
        (2, '.') => "\u{3002}".to_owned(),
        (3, '.') => "\u{ff61}".to_owned(),
        // Full width, for letters and digits alike.
        (2 | 3, _) => char::from_u32(u32::from(c) + 0xfee0).unwrap().to_string(),
        _ => c.to_string(),
    };
    let text: String = plain.join(".").char_indices().map(disguise).collect();
    if root_dot { text + "." } else { text }
}

fn private_ipv4() -> impl Strategy<Value = Ipv4Addr> {
    let within = |net: [u8; 4], prefix: u32| {
        any::<u32>().prop_map(move |bits| {
            let mask = u32::MAX << (32 - prefix);
            Ipv4Addr::from((u32::from(Ipv4Addr::from(net)) & mask) | (bits & !mask))
        })
    };
    prop_oneof![
        within([127, 0, 0, 0], 8),
        within([10, 0, 0, 0], 8),
        within([172, 16, 0, 0], 12),
        within([192, 168, 0, 0], 16),
        within([169, 254, 0, 0], 16),
        within([100, 64, 0, 0], 10),
        within([0, 0, 0, 0], 8),
    ]
}

/// By other means than the table's.
fn is_public(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a == 198 && matches!(b, 18 | 19))
        || (a == 100 && (64..128).contains(&b))
        || address == Ipv4Addr::new(168, 63, 129, 16);
    (1..224).contains(&a) && !special
}

/// All eight groups with their zeros.
fn in_full(address: Ipv6Addr) -> String {
    address.segments().map(|group| format!("{group:04X}")).join(":")
}

proptest! {
    #[test]
    fn no_spelling_hides_a_private_address(
        address in private_ipv4(),
        parts in 1..=4_usize,
        radices in any::<[u8; 4]>(),
        disguises in prop::collection::vec(any::<u8>(), 1..24),
        root_dot in any::<bool>(),
    ) {
        let host = spelled(address, parts, radices, &disguises, root_dot);
        let refused = guard().parse(&format!("https://{host}/"));
        prop_assert!(matches!(refused, Err(Refused::Address { .. } | Refused::Syntax)), "{host}: {refused:?}");
    }

    #[test]
    fn no_spelling_makes_a_public_address_a_private_one(
        address in any::<u32>().prop_map(Ipv4Addr::from).prop_filter("public", |address| is_public(*address)),
        parts in 1..=4_usize,
        radices in any::<[u8; 4]>(),
        disguises in prop::collection::vec(any::<u8>(), 1..24),
        root_dot in any::<bool>(),
    ) {
        let host = spelled(address, parts, radices, &disguises, root_dot);
        let parsed = guard().parse(&format!("https://{host}/")).map(|url| url.host_str().map(str::to_owned));
        prop_assert_eq!(parsed, Ok(Some(address.to_string())), "{}", host);
    }

    #[test]
    fn no_ipv6_address_leads_to_a_private_ipv4_address(
        address in private_ipv4(),
        rest in any::<u128>(),
        form in 0..4,
    ) {
        let number = u128::from(u32::from(address));
        let carrier = Ipv6Addr::from(match form {
            0 => (0xffff << 32) | number,
            1 => number,
            2 => (0x64_ff9b << 96) | number,
            _ => (0x2002 << 112) | (number << 80) | (rest >> 48),
        });
        for host in [carrier.to_string(), in_full(carrier)] {
            let refused = guard().parse(&format!("https://[{host}]/"));
            prop_assert!(matches!(refused, Err(Refused::Address { .. })), "{host}: {refused:?}");
        }
        prop_assert!(guard().vet("example.com", vec![SocketAddr::new(carrier.into(), 443)]).is_err());
    }

    #[test]
    fn ipv6_outside_of_global_unicast_is_refused(bits in any::<u128>()) {
        prop_assume!(bits >> 125 != 1 && bits >> 32 != 0x64_ff9b << 64);
        prop_assert!(guard().check_address(Ipv6Addr::from(bits).into()).is_err());
    }
}
