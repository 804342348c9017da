//! Receivers that answer badly.

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::notify::webhook::sender::client::MAX_HEADERS;
use crate::notify::webhook::sender::response::{KEPT_BODY, MAX_BODY};

#[tokio::test]
async fn redirects_are_not_followed() {
    let (elsewhere, port) = listener().await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("http://127.0.0.1:{port}/");
        let answer = format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let outcome = outcome(answer, Then::Hold, LONG).await;
        assert_eq!(class(&outcome), Some(ErrorClass::Redirect), "{status}");
    }
    assert!(is_untouched(elsewhere));
}

#[tokio::test]
async fn the_deadline_covers_the_head_and_the_body() {
    for answer in ["", "HTTP/1.1 200 OK\r\nX-Slow: "] {
        let outcome = outcome(answer, Then::Hold, SHORT).await;
        assert_eq!(class(&outcome), Some(ErrorClass::Timeout), "{answer}");
        assert_eq!(outcome.response, None);
    }
    let stalled = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let outcome = outcome(stalled, Then::Hold, SHORT).await;
    assert_eq!(class(&outcome), Some(ErrorClass::Timeout));
    assert_eq!(head(&outcome), (200, "half", true));
}

#[tokio::test]
async fn a_refusal_stays_one_when_its_body_stalls_or_breaks_off() {
    let stalled = "HTTP/1.1 503 Busy\r\nContent-Length: 10\r\n\r\nhalf";
    for then in [Then::Hold, Then::Close] {
        let outcome = outcome(stalled, then, SHORT).await;
        assert_eq!(class(&outcome), Some(ErrorClass::Http));
        assert_eq!(head(&outcome), (503, "half", true));
    }
}

#[tokio::test]
async fn an_endless_body_is_cut_off() {
    for (status, expected) in [(200, None), (500, Some(ErrorClass::Http))] {
        let answer = format!("HTTP/1.1 {status} X\r\n\r\n");
        let outcome = outcome(answer, Then::Flood, LONG).await;
        assert_eq!(class(&outcome), expected);
        assert_eq!(head(&outcome), (status, "x".repeat(KEPT_BODY).as_str(), true));
    }
}

#[tokio::test]
async fn a_body_is_whole_up_to_what_is_kept() {
    for (length, truncated) in [(KEPT_BODY, false), (KEPT_BODY + 1, true), (MAX_BODY, true)] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", "y".repeat(length));
        let outcome = outcome(answer, Then::Close, LONG).await;
        assert_eq!(outcome.error, None);
        assert_eq!(head(&outcome), (200, "y".repeat(KEPT_BODY).as_str(), truncated), "{length}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_reset() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for answer in ["", "HTTP/1.1 2", half, chunk] {
        for then in [Then::Close, Then::Reset] {
            let outcome = outcome(answer, then, LONG).await;
            assert_eq!(class(&outcome), Some(ErrorClass::Reset), "{answer}");
            assert_eq!(outcome.response.is_some(), answer.ends_with("half") || answer == chunk);
        }
    }
}

#[tokio::test]
async fn what_is_not_http_is_a_protocol_failure() {
    let bad_chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n";
    for answer in ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1 200 OK\r\nno header\r\n\r\n", bad_chunk] {
        let outcome = outcome(answer, Then::Hold, LONG).await;
        assert_eq!(class(&outcome), Some(ErrorClass::Protocol), "{answer}");
    }
}

#[tokio::test]
async fn a_head_without_bounds_is_too_large() {
    let many = "A: b\r\n".repeat(MAX_HEADERS + 1);
    let outcome = outcome(format!("HTTP/1.1 200 OK\r\n{many}\r\n"), Then::Hold, LONG).await;
    assert_eq!(class(&outcome), Some(ErrorClass::TooLarge));

    let (url, receiver) = receiver("HTTP/1.1 200 OK\r\nA: ", Then::Flood).await;
    let outcome = attempt(&sender(GuardPolicy::dev(), LONG), &url).await;
    assert_eq!(class(&outcome), Some(ErrorClass::TooLarge));
    bounded(receiver).await.unwrap();
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_keep_an_attempt_alive() {
    for answer in ["", "HTTP/1.1 200 OK\r\nX-Slow: ", "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"] {
        let outcome = outcome(answer, Then::Drip, SHORT).await;
        let answered = answer.ends_with("\r\n\r\n");
        // Bytes that are no HTTP may be known as such before the deadline.
        let expected = if answer.is_empty() { ErrorClass::Protocol } else { ErrorClass::Timeout };
        assert_eq!(class(&outcome), Some(expected), "{answer}");
        assert_eq!(outcome.response.is_some(), answered, "{answer}");
    }
}

#[tokio::test]
async fn compressed_bodies_are_kept_as_they_are() {
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..256 {
        io::Write::write_all(&mut bomb, &[0; 64 * 1024]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bomb.len());
    let outcome = outcome([head.as_bytes(), &bomb].concat(), Then::Close, LONG).await;
    assert_eq!(outcome.error, None);
    let response = outcome.response.unwrap();
    assert_eq!(response.body, String::from_utf8_lossy(&bomb[..KEPT_BODY]));
    assert!(response.truncated);
}

#[tokio::test]
async fn lengths_that_contradict_themselves_are_protocol_failures() {
    for lengths in ["Content-Length: 1\r\nContent-Length: 2", "Content-Length: -1", "Content-Length: 1e3"] {
        let outcome = outcome(format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nok"), Then::Hold, LONG).await;
        assert_eq!(class(&outcome), Some(ErrorClass::Protocol), "{lengths}");
    }
}

#[tokio::test]
async fn what_comes_after_the_body_is_no_part_of_it() {
    let outcome = outcome("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokand more", Then::Hold, LONG).await;
    assert_eq!(outcome.error, None);
    assert_eq!(head(&outcome), (200, "ok", false));
}

#[tokio::test]
async fn interim_answers_without_end_do_not_count_as_one() {
    let outcome = outcome("HTTP/1.1 100 Continue\r\n\r\n".repeat(1000), Then::Hold, SHORT).await;
    assert_eq!(class(&outcome), Some(ErrorClass::Timeout));
    assert_eq!(outcome.response, None);
}

#[tokio::test]
async fn what_the_receiver_does_is_the_receivers_fault() {
    for (answer, then) in [
        ("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", Then::Close),
        ("HTTP/1.1 302 X\r\nContent-Length: 0\r\n\r\n", Then::Close),
        ("HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n", Then::Close),
        ("nonsense\r\n\r\n", Then::Close),
        ("", Then::Close),
        ("", Then::Reset),
        ("", Then::Hold),
    ] {
        let outcome = outcome(answer, then, SHORT).await;
        assert_eq!(outcome.error.unwrap().fault, Fault::Receiver, "{answer}");
    }
}
