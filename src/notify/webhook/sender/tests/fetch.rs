//! Fetching pictures: what a name leads to is decided where it is connected to.

use super::*;
use crate::notify::webhook::sender::fetch::FetchError;

fn fetcher(guard: Guard) -> Sender {
    Sender::for_pictures(guard, &config(LONG)).unwrap()
}

/// Answers every request with a few bytes, and counts them.
async fn source() -> (u16, Arc<AtomicUsize>) {
    let (listener, port) = listener().await;
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            while !buffer.windows(4).any(|end| end == b"\r\n\r\n") {
                if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            count.fetch_add(1, Ordering::Relaxed);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").await.unwrap();
        }
    });
    (port, served)
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_not_followed() {
    let (port, served) = source().await;
    let asked = AtomicUsize::new(0);
    let policy = GuardPolicy {
        allow_http: true,
        allow_networks: vec!["127.0.0.1/32".parse().unwrap()],
        ..GuardPolicy::default()
    };
    // Allowed at first; then next to an address that is not.
    let guard = Guard::with_names(policy, move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => vec![Ipv4Addr::LOCALHOST.into()],
        _ => vec![Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(169, 254, 169, 254).into()],
    });
    let fetcher = fetcher(guard);
    let url = Url::parse(&format!("http://cats.test:{port}/a.jpg?t0ken")).unwrap();
    let mut download = bounded(fetcher.fetch(&url, 3, LONG)).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = bounded(download.next()).await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(bytes, b"abc");
    let refused = bounded(fetcher.fetch(&url, 3, LONG)).await.err().unwrap();
    assert!(matches!(refused, FetchError::Blocked(_)), "{refused:?}");
    assert!(!format!("{refused} {refused:?}").contains("t0ken"));
    assert_eq!(served.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_literal_that_is_not_allowed_is_never_connected_to() {
    let (listener, port) = listener().await;
    let fetcher = fetcher(Guard::new(GuardPolicy { allow_http: true, ..GuardPolicy::default() }));
    let url = Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
    assert!(matches!(fetcher.fetch(&url, 3, LONG).await, Err(FetchError::Blocked(_))));
    assert!(is_untouched(listener));
}
