//! Connections that are kept.

use super::*;
use crate::notify::webhook::sender::response::MAX_BODY;

/// What a receiver does with a request.
pub(super) enum Does {
    Answers(Vec<u8>),
    Closes,
    Stalls,
}

impl Does {
    pub(super) fn answer(status: &str, body: &str) -> Self {
        let length = if status.starts_with("204") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        Self::Answers(format!("HTTP/1.1 {status}\r\n{length}\r\n{body}").into_bytes())
    }
}

/// A receiver that leaves its connections open.
pub(super) struct Keeping {
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Keeping {
    /// It does with a request what the connection's and the request's number on it, both from 0, ask for.
    pub(super) async fn start(
        does: impl Fn(usize, usize) -> Does + Clone + Send + 'static,
    ) -> (String, Self) {
        let (listener, port) = listener().await;
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (accepted, seen) = (Arc::clone(&connections), Arc::clone(&requests));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(Self::serve(stream, number, does.clone(), Arc::clone(&seen)));
            }
        });
        (format!("http://127.0.0.1:{port}/hook"), Self { connections, requests })
    }

    async fn serve(
        mut stream: TcpStream,
        connection: usize,
        does: impl Fn(usize, usize) -> Does,
        seen: Arc<Mutex<Vec<Vec<u8>>>>,
    ) {
        for number in 0.. {
            let mut request = Vec::new();
            while !request.ends_with(BODY) {
                if stream.read_buf(&mut request).await.is_ok_and(|read| read == 0) {
                    return;
                }
            }
            seen.lock().unwrap().push(request);
            match does(connection, number) {
                Does::Answers(answer) if stream.write_all(&answer).await.is_ok() => {}
                Does::Answers(_) | Does::Closes => return,
                Does::Stalls => std::future::pending().await,
            }
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

#[tokio::test]
async fn a_hundred_attempts_share_few_connections() {
    for status in ["200 OK", "204 No Content", "500 Internal Server Error", "302 Found"] {
        let body = if status.starts_with("204") { "" } else { "body" };
        let (url, receiver) = Keeping::start(move |_, _| Does::answer(status, body)).await;
        let sender = sender(GuardPolicy::dev(), LONG);
        for _ in 0..100 {
            let outcome = attempt(&sender, &url).await;
            assert_eq!(head(&outcome).1, body);
            assert!(outcome.remote_addr.is_some());
            settle().await;
        }
        assert_eq!((receiver.connections(), receiver.requests()), (1, 100), "{status}");
    }
}

#[tokio::test]
async fn a_connection_with_unread_bytes_is_closed() {
    let too_long = "x".repeat(64 * MAX_BODY);
    let (url, receiver) = Keeping::start(move |_, _| Does::answer("200 OK", &too_long)).await;
    let sender = sender(GuardPolicy::dev(), LONG);
    for attempts in 1..=3 {
        assert_eq!(attempt(&sender, &url).await.error, None);
        settle().await;
        assert_eq!(receiver.connections(), attempts);
    }
}

#[tokio::test]
async fn a_connection_that_was_cut_off_is_closed() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let (url, receiver) = Keeping::start(move |connection, _| match connection {
        0 => Does::Answers(half.to_vec()),
        1 => Does::Stalls,
        _ => Does::answer("204 No Content", ""),
    })
    .await;
    let sender = sender(GuardPolicy::dev(), SHORT);
    for expected in [Some(ErrorClass::Timeout), Some(ErrorClass::Timeout), None] {
        assert_eq!(class(&attempt(&sender, &url).await), expected);
        settle().await;
    }
    assert_eq!((receiver.connections(), receiver.requests()), (3, 3));
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_answers_nothing() {
    let forged = "HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (url, receiver) = Keeping::start(move |_, _| Does::Answers(forged.into())).await;
    let sender = sender(GuardPolicy::dev(), LONG);
    for attempts in 1..=20 {
        let outcome = attempt(&sender, &url).await;
        assert_eq!(class(&outcome), Some(ErrorClass::Http));
        assert_eq!(receiver.requests(), attempts);
    }
}

#[tokio::test]
async fn a_request_that_met_a_closing_connection_goes_out_once_more() {
    let (url, receiver) = Keeping::start(|connection, number| match (connection, number) {
        (0, 1) => Does::Closes,
        _ => Does::answer("200 OK", "ok"),
    })
    .await;
    let sender = sender(GuardPolicy::dev(), LONG);
    for _ in 0..2 {
        assert_eq!(attempt(&sender, &url).await.error, None);
        settle().await;
    }
    assert_eq!((receiver.connections(), receiver.requests()), (2, 3));
    let requests = receiver.requests.lock().unwrap();
    assert_eq!(parse_request(&requests[1]).1, parse_request(&requests[2]).1);
}

#[tokio::test]
async fn and_not_a_third_time() {
    let (url, receiver) = Keeping::start(|connection, number| match (connection, number) {
        (0, 0) => Does::answer("200 OK", "ok"),
        _ => Does::Closes,
    })
    .await;
    let sender = sender(GuardPolicy::dev(), LONG);
    assert_eq!(attempt(&sender, &url).await.error, None);
    settle().await;
    assert_eq!(class(&attempt(&sender, &url).await), Some(ErrorClass::Reset));
    assert_eq!((receiver.connections(), receiver.requests()), (2, 3));
    // On a connection of its own it is not repeated at all.
    assert_eq!(class(&attempt(&sender, &url).await), Some(ErrorClass::Reset));
    assert_eq!((receiver.connections(), receiver.requests()), (3, 4));
}

#[tokio::test]
async fn a_repetition_shares_the_deadline() {
    let (url, receiver) = Keeping::start(|connection, number| match (connection, number) {
        (0, 0) => Does::answer("200 OK", "ok"),
        (0, _) => Does::Closes,
        _ => Does::Stalls,
    })
    .await;
    let sender = sender(GuardPolicy::dev(), SHORT);
    assert_eq!(attempt(&sender, &url).await.error, None);
    settle().await;
    assert_eq!(class(&attempt(&sender, &url).await), Some(ErrorClass::Timeout));
    assert_eq!(receiver.requests(), 3);
}

#[tokio::test]
async fn a_connection_serves_no_sender_with_another_policy() {
    let (url, receiver) = Keeping::start(|_, _| Does::answer("200 OK", "ok")).await;
    let url = url.replace("127.0.0.1", "localhost");
    let lenient = sender(GuardPolicy::dev(), LONG);
    assert_eq!(attempt(&lenient, &url).await.error, None);
    settle().await;
    let strict = sender(GuardPolicy { allow_http: true, ..GuardPolicy::default() }, LONG);
    assert_eq!(class(&attempt(&strict, &url).await), Some(ErrorClass::BlockedAddress));
    assert_eq!((receiver.connections(), receiver.requests()), (1, 1));
}
