//! The egress proxy.

use super::tls::TlsReceiver;
use super::*;

const CREDENTIALS: &str = "user:pa%2055word";
/// Of `user:pa 55word`.
const AUTHORIZATION: &str = "Basic dXNlcjpwYSA1NXdvcmQ=";

/// What a proxy does with a request.
#[derive(Clone, Copy)]
enum Does {
    /// Connects to this port of this machine, whoever was asked for.
    Tunnels(u16),
    /// Answers so.
    Answers(&'static str),
    Stalls,
}

/// A proxy for one request, its URL, and the head of that request.
async fn proxy(does: Does) -> (EgressProxy, JoinHandle<Vec<u8>>) {
    let (listener, port) = listener().await;
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.windows(4).any(|window| window == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
        }
        match does {
            Does::Tunnels(port) => {
                let mut target = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut target).await;
            }
            Does::Answers(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
            Does::Stalls => while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {},
        }
        head
    });
    (at(port), task)
}

fn at(port: u16) -> EgressProxy {
    Url::parse(&format!("http://{CREDENTIALS}@127.0.0.1:{port}")).unwrap().into()
}

fn through(proxy: EgressProxy, timeout: Duration) -> SenderConfig {
    SenderConfig { egress_proxy: Some(proxy), ..config(timeout) }
}

/// A sender to which every name has this address, and nothing private is allowed.
fn sender_to(address: Ipv4Addr, trust: &Trust, config: &SenderConfig) -> Sender {
    let policy = GuardPolicy { allow_http: true, ..GuardPolicy::default() };
    let guard = Guard::with_names(policy, move |_| vec![address.into()]);
    let user_agent = HeaderValue::from_str(&config.user_agent).unwrap();
    Sender::trusting(guard, config, user_agent, trust).unwrap()
}

const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);

fn error_of(outcome: &Outcome) -> (ErrorClass, Fault) {
    assert!(!format!("{outcome:?}").contains("55word"), "{outcome:?}");
    outcome.error.as_ref().map(|error| (error.class, error.fault)).expect("a failure")
}

#[tokio::test]
async fn a_callback_over_tls_goes_through_a_tunnel() {
    let receiver = TlsReceiver::new(&[]).await;
    let (proxy, proxied) = proxy(Does::Tunnels(receiver.port)).await;
    // The receiver's address is checked, the proxy's is not.
    let sender = sender_to(PUBLIC, &receiver.trust(), &through(proxy, LONG));
    let (url, authority) = (receiver.url(), format!("receiver.test:{}", receiver.port));
    let receiver = receiver.answers("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok");
    let outcome = attempt(&sender, &url).await;
    assert_eq!(outcome.error, None);
    assert_eq!(head(&outcome), (200, "ok", false));
    // It is the proxy's, and no receiver's.
    assert_eq!(outcome.remote_addr, None);
    let Timings { dns_us, connect_us, tls_us, ttfb_us, body_us } = outcome.timings;
    assert!([dns_us, connect_us, tls_us, ttfb_us, body_us].iter().all(Option::is_some), "{outcome:?}");
    let request = bounded(receiver).await.unwrap();
    assert!(!String::from_utf8_lossy(&request).to_lowercase().contains("proxy"));
    let (line, headers, _) = parse_request(&bounded(proxied).await.unwrap());
    assert_eq!(line, format!("CONNECT {authority} HTTP/1.1"));
    assert_eq!(headers["proxy-authorization"], AUTHORIZATION);
    assert!(!headers.contains_key(HEADER_SIGNATURE));
}

#[tokio::test]
async fn a_callback_without_tls_goes_through_as_well() {
    let (proxy, proxied) = proxy(Does::Answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")).await;
    let sender = sender_to(PUBLIC, &Trust::Nobody, &through(proxy, LONG));
    let outcome = attempt(&sender, "http://receiver.test/hook?token=t0ken").await;
    assert_eq!(outcome.error, None);
    assert_eq!((head(&outcome), outcome.remote_addr), ((200, "ok", false), None));
    let (line, headers, _) = parse_request(&bounded(proxied).await.unwrap());
    assert_eq!(line, "POST http://receiver.test/hook?token=t0ken HTTP/1.1");
    assert_eq!(headers["proxy-authorization"], AUTHORIZATION);
}

#[tokio::test]
async fn the_guard_holds_in_front_of_a_proxy() {
    let (listener, port) = listener().await;
    let sender = sender_to(Ipv4Addr::new(10, 0, 0, 1), &Trust::Nobody, &through(at(port), LONG));
    for url in [
        "http://127.0.0.1/",
        "https://0x7f.1/",
        "https://[::1]/",
        "http://internal.test/",
        "https://internal.test/",
    ] {
        let outcome = attempt(&sender, url).await;
        assert_eq!(error_of(&outcome), (ErrorClass::BlockedAddress, Fault::Service), "{url}");
    }
    assert!(is_untouched(listener));
}

#[tokio::test]
async fn what_the_proxy_fails_at_is_the_proxys_fault() {
    let urls = ["https://receiver.test/", "http://receiver.test/"];
    for url in urls {
        let (closed, port) = listener().await;
        drop(closed);
        let sender = sender_to(PUBLIC, &Trust::Nobody, &through(at(port), LONG));
        assert_eq!(error_of(&attempt(&sender, url).await), (ErrorClass::Connect, Fault::Proxy), "{url}");

        let (_listener, port, _queue) = full_listener().await;
        let sender = sender_to(PUBLIC, &Trust::Nobody, &through(at(port), SHORT));
        assert_eq!(error_of(&attempt(&sender, url).await), (ErrorClass::Timeout, Fault::Proxy), "{url}");
    }
    for (url, answer, expected) in [
        (urls[0], "HTTP/1.1 403 Forbidden\r\n\r\n", ErrorClass::Connect),
        (urls[0], "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", ErrorClass::Connect),
        (urls[0], "SSH-2.0-OpenSSH_9.2\r\n\r\n", ErrorClass::Connect),
        (urls[0], "", ErrorClass::Connect),
        (
            urls[1],
            "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            ErrorClass::Http,
        ),
        (urls[1], "", ErrorClass::Reset),
        (urls[1], "SSH-2.0-OpenSSH_9.2\r\n\r\n", ErrorClass::Protocol),
    ] {
        let (proxy, proxied) = proxy(Does::Answers(answer)).await;
        let sender = sender_to(PUBLIC, &Trust::Nobody, &through(proxy, LONG));
        assert_eq!(error_of(&attempt(&sender, url).await), (expected, Fault::Proxy), "{url} {answer}");
        bounded(proxied).await.unwrap();
    }
    let (proxy, proxied) = proxy(Does::Stalls).await;
    let sender = sender_to(PUBLIC, &Trust::Nobody, &through(proxy, SHORT));
    assert_eq!(error_of(&attempt(&sender, urls[0]).await), (ErrorClass::Timeout, Fault::Proxy));
    bounded(proxied).await.unwrap();
}

#[tokio::test]
async fn behind_a_tunnel_the_receivers_faults_are_its_own() {
    let (receiver, other) = (TlsReceiver::new(&[]).await, TlsReceiver::new(&[]).await);
    let (proxy, proxied) = proxy(Does::Tunnels(receiver.port)).await;
    let sender = sender_to(PUBLIC, &other.trust(), &through(proxy, LONG));
    let url = receiver.url();
    let accepting = tokio::spawn(async move { receiver.accept().await.map(drop) });
    assert_eq!(error_of(&attempt(&sender, &url).await), (ErrorClass::Tls, Fault::Receiver));
    bounded(accepting).await.unwrap().unwrap_err();
    bounded(proxied).await.unwrap();

    let receiver = TlsReceiver::new(&[]).await;
    let (proxy, proxied) = self::proxy(Does::Tunnels(receiver.port)).await;
    let sender = sender_to(PUBLIC, &receiver.trust(), &through(proxy, LONG));
    let url = receiver.url();
    let receiver = receiver.answers("HTTP/1.1 407 X\r\nConnection: close\r\n\r\n");
    assert_eq!(error_of(&attempt(&sender, &url).await), (ErrorClass::Http, Fault::Receiver));
    bounded(receiver).await.unwrap();
    bounded(proxied).await.unwrap();
}

#[tokio::test]
async fn a_handshake_with_the_proxy_is_not_the_receivers() {
    for is_trusted in [true, false] {
        let proxy = TlsReceiver::new(&[]).await;
        let trust = if is_trusted { proxy.trust() } else { TlsReceiver::new(&[]).await.trust() };
        let url = Url::parse(&format!("https://localhost:{}", proxy.port)).unwrap();
        let sender = sender_to(PUBLIC, &trust, &through(url.into(), LONG));
        let proxied = tokio::spawn(async move {
            if let Ok(mut stream) = proxy.accept().await {
                assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
                stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await.unwrap();
            }
        });
        let outcome = attempt(&sender, "https://receiver.test/").await;
        assert_eq!(error_of(&outcome), (ErrorClass::Connect, Fault::Proxy), "{outcome:?}");
        assert!(outcome.timings.connect_us.is_some() && outcome.timings.tls_us.is_none());
        bounded(proxied).await.unwrap();
    }
}
