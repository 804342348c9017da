//! Asking a receiver for its permission.

use super::*;

const ORIGIN: &str = "hooks.example.com";

/// What became of a receiver's answer, and what it was asked.
async fn handshake(answer: &str, then: Then) -> (Result<Grant, Failure>, HeaderMap) {
    let (url, receiver) = receiver(answer, then).await;
    let sender = sender(GuardPolicy::dev(), LONG);
    let url = Url::parse(&url).unwrap();
    let result = bounded(sender.handshake(&url, ORIGIN, Some(120), SHORT)).await;
    let (line, headers, _) = parse_request(&bounded(receiver).await.unwrap());
    assert_eq!(line, "OPTIONS /hook?token=t0ken HTTP/1.1");
    (result, headers)
}

fn answer(status: u16, origin: &str, rate: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nWebHook-Allowed-Origin: {origin}\r\nWebHook-Allowed-Rate: {rate}\r\n\r\n")
}

#[tokio::test]
async fn a_grant_names_us_or_all_and_a_rate_whatever_the_status() {
    for (status, origin, rate, expected) in [
        (200, ORIGIN, "60", Some(60)),
        (204, "*", "*", None),
        (405, "Hooks.Example.COM", "1", Some(1)),
        (302, "*", "4294967295", Some(u32::MAX)),
    ] {
        // A body that never ends does not matter either.
        let (result, asked) = handshake(&answer(status, origin, rate), Then::Flood).await;
        assert_eq!(result, Ok(Grant { rate_per_minute: expected }), "{status}");
        assert_eq!(asked["webhook-request-origin"], ORIGIN);
        assert_eq!(asked["webhook-request-rate"], "120");
    }
}

#[tokio::test]
async fn anything_else_is_none() {
    for (origin, rate) in [
        ("example.com", "*"),
        ("null", "*"),
        ("", "*"),
        ("*", "0"),
        ("*", "-1"),
        ("*", "many"),
        ("*", "4294967296"),
    ] {
        let (result, _) = handshake(&answer(200, origin, rate), Then::Close).await;
        assert_eq!(result.unwrap_err().class, ErrorClass::Http, "{origin} {rate}");
    }
    for header in ["WebHook-Allowed-Origin: *", "WebHook-Allowed-Rate: *", "X: y"] {
        let (result, _) = handshake(&format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\n"), Then::Close).await;
        assert_eq!(result.unwrap_err().class, ErrorClass::Http, "{header}");
    }
    for (answer, then, expected) in [
        ("", Then::Hold, ErrorClass::Timeout),
        ("", Then::Close, ErrorClass::Reset),
        ("nonsense\r\n\r\n", Then::Hold, ErrorClass::Protocol),
    ] {
        assert_eq!(handshake(answer, then).await.0.unwrap_err().class, expected);
    }
}

#[tokio::test]
async fn the_guard_is_asked_first() {
    let (listener, port) = listener().await;
    let sender = sender(GuardPolicy { allow_http: true, ..GuardPolicy::default() }, LONG);
    for host in ["127.0.0.1", "localhost"] {
        let url = Url::parse(&format!("http://{host}:{port}/")).unwrap();
        let refused = bounded(sender.handshake(&url, ORIGIN, None, LONG)).await.unwrap_err();
        assert_eq!(refused.class, ErrorClass::BlockedAddress);
    }
    assert!(is_untouched(listener));
}

#[tokio::test]
async fn who_was_permitted_says_so_at_each_attempt() {
    let (url, receiver) = receiver("HTTP/1.1 204 No Content\r\n\r\n", Then::Close).await;
    let url = Url::parse(&url).unwrap();
    let sender = sender(GuardPolicy::dev(), LONG);
    let outcome =
        bounded(sender.attempt(&Request { origin: Some(ORIGIN), ..request(&url, &secrets()) })).await;
    assert_eq!(outcome.error, None);
    let (_, headers, _) = parse_request(&bounded(receiver).await.unwrap());
    assert_eq!(headers["webhook-request-origin"], ORIGIN);
}
