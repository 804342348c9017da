//! Receivers with TLS.

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;

#[tokio::test]
async fn tls_with_a_receiver_that_has_none_is_a_tls_failure() {
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let (listener, port) = listener().await;
        let receiver = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The whole hello, lest the close become a reset.
            let _ = stream.read(&mut [0; 16 * 1024]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let url = format!("https://127.0.0.1:{port}/");
        let outcome = attempt(&sender(GuardPolicy::dev(), LONG), &url).await;
        assert_eq!(class(&outcome), Some(ErrorClass::Tls), "{answer} {outcome:?}");
        bounded(receiver).await.unwrap();
    }
}

/// The receivers' name; the sender takes it for loopback.
pub(super) const NAME: &str = "receiver.test";

/// A receiver with a certificate of its own.
pub(super) struct TlsReceiver {
    pub(super) port: u16,
    certificate: CertificateDer<'static>,
    acceptor: TlsAcceptor,
    listener: TcpListener,
}

impl TlsReceiver {
    pub(super) async fn new(alpn: &[&[u8]]) -> Self {
        let own = rcgen::generate_simple_self_signed([NAME.to_owned(), "localhost".to_owned()]).unwrap();
        let certificate = own.cert.der().clone();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let (listener, port) = listener().await;
        Self { port, certificate, acceptor: TlsAcceptor::from(Arc::new(config)), listener }
    }

    pub(super) fn url(&self) -> String {
        format!("https://{NAME}:{}/hook?token=t0ken", self.port)
    }

    /// Who trusts this receiver.
    pub(super) fn trust(&self) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        Trust::Anchors(
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap(),
        )
    }

    pub(super) async fn accept(&self) -> io::Result<TlsStream<TcpStream>> {
        let (stream, _) = self.listener.accept().await?;
        self.acceptor.accept(stream).await
    }

    /// Answers one request over HTTP/1.
    pub(super) fn answers(self, answer: &'static str) -> JoinHandle<Vec<u8>> {
        tokio::spawn(async move {
            let mut stream = self.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(BODY) {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request breaks off");
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            request
        })
    }
}

/// A sender to which every name is this machine.
pub(super) fn trusting(trust: &Trust, config: &SenderConfig) -> Sender {
    let guard = Guard::with_names(GuardPolicy::dev(), |_| vec![Ipv4Addr::LOCALHOST.into()]);
    let user_agent = HeaderValue::from_str(&config.user_agent).unwrap();
    Sender::trusting(guard, config, user_agent, trust).unwrap()
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_callback_arrives_over_tls() {
    let receiver = TlsReceiver::new(&[b"http/1.1"]).await;
    let (sender, url) = (trusting(&receiver.trust(), &config(LONG)), receiver.url());
    let receiver = receiver.answers(OK);
    let outcome = attempt(&sender, &url).await;
    assert_eq!(outcome.error, None);
    assert_eq!(head(&outcome), (200, "ok", false));
    let (line, ..) = parse_request(&bounded(receiver).await.unwrap());
    assert_eq!(line, "POST /hook?token=t0ken HTTP/1.1");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_a_tls_failure() {
    let (receiver, other) = (TlsReceiver::new(&[]).await, TlsReceiver::new(&[]).await);
    let url = receiver.url();
    let unknown = trusting(&other.trust(), &config(LONG));
    let wrong_name = receiver.trust();
    let wrong_name = trusting(&wrong_name, &config(LONG));
    tokio::spawn(async move {
        loop {
            let _ = receiver.accept().await;
        }
    });
    for (sender, url) in [(unknown, url.clone()), (wrong_name, url.replace(NAME, "other.test"))] {
        let error = attempt(&sender, &url).await.error.unwrap();
        assert_eq!((error.class, error.fault), (ErrorClass::Tls, Fault::Receiver), "{}", error.detail);
    }
    let error = attempt(&trusting(&Trust::Nobody, &config(LONG)), &url).await.error.unwrap();
    assert_eq!((error.class, error.fault), (ErrorClass::Tls, Fault::Service), "{}", error.detail);
}

#[tokio::test]
async fn a_handshake_that_stalls_is_a_timeout() {
    let (listener, port) = listener().await;
    let receiver = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
    });
    let outcome = attempt(&sender(GuardPolicy::dev(), SHORT), &format!("https://127.0.0.1:{port}/")).await;
    let error = outcome.error.unwrap();
    assert_eq!((error.class, error.fault), (ErrorClass::Timeout, Fault::Receiver));
    bounded(receiver).await.unwrap();
}

#[tokio::test]
async fn nonsense_over_http2_is_a_protocol_failure() {
    for nonsense in [&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..], &[0xff; 64], &[0; 64]] {
        let receiver = TlsReceiver::new(&[b"h2"]).await;
        let (sender, url) = (trusting(&receiver.trust(), &config(LONG)), receiver.url());
        let task = tokio::spawn(async move {
            let mut stream = receiver.accept().await.unwrap();
            stream.write_all(nonsense).await.unwrap();
            while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
        });
        let outcome = attempt(&sender, &url).await;
        assert_eq!(class(&outcome), Some(ErrorClass::Protocol), "{nonsense:?} {outcome:?}");
        drop(sender);
        bounded(task).await.unwrap();
    }
}

/// What a receiver does with each request over HTTP/2.
#[derive(Clone, Copy)]
enum H2 {
    Answer,
    Flood,
    HugeHead,
    Refuse,
    Stall,
}

async fn h2_receiver(receiver: &TlsReceiver, behaviour: H2) {
    let stream = receiver.accept().await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let mut held = Vec::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let mut response = http::Response::new(());
        match behaviour {
            H2::Answer => {
                let mut body = respond.send_response(response, false).unwrap();
                body.send_data(Bytes::from_static(b"ok"), true).unwrap();
            }
            H2::Flood => {
                let mut body = respond.send_response(response, false).unwrap();
                tokio::spawn(async move {
                    loop {
                        body.reserve_capacity(16 * 1024);
                        match std::future::poll_fn(|context| body.poll_capacity(context)).await {
                            Some(Ok(room)) => body.send_data(Bytes::from(vec![b'x'; room]), false).unwrap(),
                            _ => return,
                        }
                    }
                });
            }
            H2::HugeHead => {
                response.headers_mut().insert("x-huge", "h".repeat(64 * 1024).parse().unwrap());
                let _ = respond.send_response(response, true);
            }
            H2::Refuse => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            H2::Stall => held.push((request, respond)),
        }
    }
}

#[tokio::test]
async fn receivers_over_http2_are_bounded_too() {
    // All attempts come over one connection, for the receiver accepts no other.
    for (behaviour, attempts, timeout, expected) in [
        (H2::Answer, 2, LONG, None),
        (H2::Flood, 2, LONG, None),
        (H2::HugeHead, 1, LONG, Some(ErrorClass::TooLarge)),
        (H2::Refuse, 2, LONG, Some(ErrorClass::Reset)),
        (H2::Stall, 2, SHORT, Some(ErrorClass::Timeout)),
    ] {
        let receiver = TlsReceiver::new(&[b"h2"]).await;
        let (sender, url) = (trusting(&receiver.trust(), &config(timeout)), receiver.url());
        let task = tokio::spawn(async move {
            h2_receiver(&receiver, behaviour).await;
            receiver.listener
        });
        for _ in 0..attempts {
            let outcome = attempt(&sender, &url).await;
            assert_eq!(class(&outcome), expected, "{outcome:?}");
        }
        drop(sender);
        assert!(is_untouched(bounded(task).await.unwrap()), "nothing is repeated");
    }
}
