//! Receivers that cannot be reached, or must not be.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn a_closed_port_is_a_connect_failure_that_does_not_repeat_the_url() {
    let (closed, port) = listener().await;
    drop(closed);
    let url = format!("http://127.0.0.1:{port}/hook?token=t0ken");
    let outcome = attempt(&sender(GuardPolicy::dev(), LONG), &url).await;
    assert_eq!(class(&outcome), Some(ErrorClass::Connect));
    assert_eq!((outcome.remote_addr, &outcome.response), (None, &None));
    assert!(!format!("{outcome:?}").contains("t0ken"));
}

#[tokio::test]
async fn blocked_literals_are_never_connected_to() {
    let (listener, port) = listener().await;
    let sender = sender(GuardPolicy { allow_http: true, ..GuardPolicy::default() }, LONG);
    for host in ["127.0.0.1", "0x7f.1", "2130706433", "127.1.", "0", "１２７.0.0.1", "[::ffff:127.0.0.1]"]
    {
        let outcome = attempt(&sender, &format!("http://{host}:{port}/")).await;
        assert_eq!(class(&outcome), Some(ErrorClass::BlockedAddress), "{host}");
    }
    assert!(is_untouched(listener));
}

#[tokio::test]
async fn blocked_names_are_never_connected_to() {
    let (listener, port) = listener().await;
    let sender = sender(GuardPolicy { allow_http: true, ..GuardPolicy::default() }, LONG);
    let outcome = attempt(&sender, &format!("http://localhost:{port}/")).await;
    assert_eq!(class(&outcome), Some(ErrorClass::BlockedAddress));
    assert!(is_untouched(listener));
}

#[tokio::test]
async fn an_allowed_name_is_called_whatever_its_address() {
    let (url, receiver) = receiver("HTTP/1.1 204 No Content\r\n\r\n", Then::Close).await;
    let allow_hosts = vec!["localhost".to_owned()];
    let sender = sender(GuardPolicy { allow_http: true, allow_hosts, ..GuardPolicy::default() }, LONG);
    let outcome = attempt(&sender, &url.replace("127.0.0.1", "localhost")).await;
    assert_eq!(outcome.error, None);
    bounded(receiver).await.unwrap();
}

#[tokio::test]
async fn plain_http_is_refused_at_the_attempt_too() {
    let (listener, port) = listener().await;
    let sender = sender(GuardPolicy { allow_http: false, ..GuardPolicy::dev() }, LONG);
    let outcome = attempt(&sender, &format!("http://127.0.0.1:{port}/")).await;
    assert_eq!(class(&outcome), Some(ErrorClass::BlockedAddress));
    assert!(is_untouched(listener));
}

#[tokio::test]
async fn a_name_without_address_is_a_dns_failure() {
    let url = format!("http://{}.invalid/", "x".repeat(64));
    let outcome = attempt(&sender(GuardPolicy::dev(), LONG), &url).await;
    assert_eq!(class(&outcome), Some(ErrorClass::Dns));
}

#[tokio::test]
async fn a_name_is_asked_for_at_each_attempt_and_only_once() {
    let (listener, port) = listener().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let policy = GuardPolicy { allow_http: true, ..GuardPolicy::default() };
    let guard = Guard::with_names(policy, {
        let asked = Arc::clone(&asked);
        move |_| {
            // Public when it is checked, and loopback when it is connected to.
            let public = asked.fetch_add(1, Ordering::Relaxed) == 0;
            vec![if public { Ipv4Addr::new(93, 184, 215, 14) } else { Ipv4Addr::LOCALHOST }.into()]
        }
    });
    let url = format!("http://rebound.test:{port}/");
    assert!(guard.resolve("rebound.test", port).await.is_ok());
    let sender = Sender::new(guard, &config(LONG)).unwrap();
    for attempts in 1..=3 {
        let outcome = attempt(&sender, &url).await;
        assert_eq!(class(&outcome), Some(ErrorClass::BlockedAddress));
        assert_eq!(asked.load(Ordering::Relaxed), 1 + attempts);
    }
    assert!(is_untouched(listener));
}

#[tokio::test]
async fn one_forbidden_address_among_several_refuses_them_all() {
    let (listener, port) = listener().await;
    let policy = GuardPolicy { allow_http: true, ..GuardPolicy::default() };
    let guard = Guard::with_names(policy, |_| {
        vec![Ipv4Addr::new(93, 184, 215, 14).into(), Ipv4Addr::LOCALHOST.into()]
    });
    let outcome =
        attempt(&Sender::new(guard, &config(LONG)).unwrap(), &format!("http://mixed.test:{port}/")).await;
    let error = outcome.error.unwrap();
    assert_eq!((error.class, error.fault), (ErrorClass::BlockedAddress, Fault::Service));
    assert!(error.detail.contains("loopback"), "{}", error.detail);
    assert!(is_untouched(listener));
}

#[tokio::test]
async fn a_receiver_that_does_not_accept_is_a_timeout() {
    let (_listener, port, _queue) = full_listener().await;
    let outcome = attempt(&sender(GuardPolicy::dev(), SHORT), &format!("http://127.0.0.1:{port}/")).await;
    let error = outcome.error.unwrap();
    assert_eq!((error.class, error.fault), (ErrorClass::Timeout, Fault::Receiver));
}

/// Plain HTTP and nothing else that is not public. To set it up takes longer than what it is asked for.
static STRICT: LazyLock<Sender> =
    LazyLock::new(|| sender(GuardPolicy { allow_http: true, ..GuardPolicy::default() }, LONG));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_spelling_of_loopback_reaches_a_listener(
        host in any::<[u8; 3]>(),
        spelling in 0..6,
    ) {
        let address = Ipv4Addr::new(127, host[0], host[1], host[2]);
        let number = u32::from(address);
        let host = match spelling {
            0 => address.to_string(),
            1 => number.to_string(),
            2 => format!("{number:#x}."),
            3 => format!("0{number:o}"),
            4 => format!("127.{:#x}", number & 0x00ff_ffff),
            _ => format!("[::ffff:{address}]"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // On all addresses of this machine.
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let outcome = attempt(&STRICT, &format!("http://{host}:{port}/")).await;
            assert_eq!(class(&outcome), Some(ErrorClass::BlockedAddress), "{host}");
            assert!(is_untouched(listener), "{host}");
        });
    }
}
