//! Which parts of an attempt are measured.

use super::tls::{TlsReceiver, trusting};
use super::*;

/// Which parts were measured.
fn measured(outcome: &Outcome) -> Vec<&'static str> {
    let Timings { dns_us, connect_us, tls_us, ttfb_us, body_us } = outcome.timings;
    let all =
        [("dns", dns_us), ("connect", connect_us), ("tls", tls_us), ("ttfb", ttfb_us), ("body", body_us)];
    let sum: u128 = all.iter().filter_map(|(_, time)| *time).map(u128::from).sum();
    assert!(sum <= outcome.duration.as_micros(), "{outcome:?}");
    all.iter().filter(|(_, time)| time.is_some()).map(|(name, _)| *name).collect()
}

#[tokio::test]
async fn a_whole_attempt_has_all_that_it_needed() {
    let outcome = outcome("HTTP/1.1 204 No Content\r\n\r\n", Then::Close, LONG).await;
    assert_eq!(measured(&outcome), ["connect", "ttfb", "body"]);

    let (url, receiver) = receiver("HTTP/1.1 204 No Content\r\n\r\n", Then::Close).await;
    let outcome = attempt(&sender(GuardPolicy::dev(), LONG), &url.replace("127.0.0.1", "localhost")).await;
    assert_eq!(measured(&outcome), ["dns", "connect", "ttfb", "body"]);
    bounded(receiver).await.unwrap();

    let receiver = TlsReceiver::new(&[]).await;
    let (sender, url) = (trusting(&receiver.trust(), &config(LONG)), receiver.url());
    let receiver = receiver.answers("HTTP/1.1 204 No Content\r\n\r\n");
    let outcome = attempt(&sender, &url).await;
    assert_eq!(measured(&outcome), ["dns", "connect", "tls", "ttfb", "body"]);
    bounded(receiver).await.unwrap();
}

#[tokio::test]
async fn a_part_lasts_as_long_as_the_receiver_takes_for_it() {
    const TAKEN: Duration = Duration::from_millis(60);
    let (listener, port) = listener().await;
    let receiver = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        tokio::time::sleep(TAKEN).await;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    });
    let outcome = attempt(&sender(GuardPolicy::dev(), LONG), &format!("http://127.0.0.1:{port}/")).await;
    assert!(u128::from(outcome.timings.ttfb_us.unwrap()) >= TAKEN.as_micros(), "{outcome:?}");
    bounded(receiver).await.unwrap();
}

#[tokio::test]
async fn what_was_not_reached_is_not_measured() {
    let policy = || GuardPolicy { allow_http: true, ..GuardPolicy::default() };
    let refused = attempt(&sender(policy(), LONG), "http://127.0.0.1:9/").await;
    assert_eq!(measured(&refused), [] as [&str; 0]);
    let refused = attempt(&sender(policy(), LONG), "http://localhost:9/").await;
    assert_eq!(measured(&refused), ["dns"]);

    let (closed, port) = listener().await;
    drop(closed);
    let refused = attempt(&sender(GuardPolicy::dev(), LONG), &format!("http://127.0.0.1:{port}/")).await;
    assert_eq!(measured(&refused), ["connect"]);

    let broken = outcome("", Then::Close, LONG).await;
    assert_eq!(measured(&broken), ["connect", "ttfb"]);
}

#[tokio::test]
async fn the_deadline_cuts_a_part_off_where_it_is() {
    let (_listener, port, _queue) = full_listener().await;
    let connecting = attempt(&sender(GuardPolicy::dev(), SHORT), &format!("http://127.0.0.1:{port}/")).await;
    assert_eq!(measured(&connecting), ["connect"]);
    assert!(connecting.timings.connect_us > Some(0));

    let (listener, port) = listener().await;
    let in_tls = attempt(&sender(GuardPolicy::dev(), SHORT), &format!("https://127.0.0.1:{port}/")).await;
    assert_eq!(measured(&in_tls), ["connect", "tls"]);
    assert!(in_tls.timings.tls_us > Some(0));
    drop(listener);

    let before_the_head = outcome("HTTP/1.1 200", Then::Hold, SHORT).await;
    assert_eq!(measured(&before_the_head), ["connect", "ttfb"]);
    let in_the_body = outcome("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Then::Hold, SHORT).await;
    assert_eq!(measured(&in_the_body), ["connect", "ttfb", "body"]);
}

#[tokio::test]
async fn a_kept_connection_needs_neither_look_up_nor_connect() {
    let (url, _receiver) = reuse::Keeping::start(|_, _| reuse::Does::answer("204 No Content", "")).await;
    let sender = sender(GuardPolicy::dev(), LONG);
    let url = url.replace("127.0.0.1", "localhost");
    assert_eq!(measured(&attempt(&sender, &url).await), ["dns", "connect", "ttfb", "body"]);
    settle().await;
    assert_eq!(measured(&attempt(&sender, &url).await), ["ttfb", "body"]);
}

#[tokio::test]
async fn a_connection_that_was_not_needed_in_the_end_is_no_part_of_the_attempt() {
    let listener = short_listener();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let sender = Arc::new(sender(GuardPolicy::dev(), 10 * SHORT));
    let attempting = || {
        let (sender, url) = (Arc::clone(&sender), url.clone());
        tokio::spawn(async move { attempt(&sender, &url).await })
    };
    let first = attempting();
    let (mut stream, _) = bounded(listener.accept()).await.unwrap();
    bounded(read_request(&mut stream)).await;
    let _queue = fill(&listener).await;
    // They wait for a connection of their own, which does not come about, and take the first one's in turn.
    let (second, third) = (attempting(), attempting());
    settle().await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    stream.write_all(answer).await.unwrap();
    assert_eq!(measured(&bounded(first).await.unwrap()), ["connect", "ttfb", "body"]);
    bounded(read_request(&mut stream)).await;
    stream.write_all(answer).await.unwrap();
    bounded(read_request(&mut stream)).await;
    for (attempt, expected) in [(second, &["ttfb", "body"][..]), (third, &["ttfb"])] {
        assert_eq!(measured(&bounded(attempt).await.unwrap()), expected);
    }
}
