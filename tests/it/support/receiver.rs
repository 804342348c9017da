//! A receiver of callbacks: answers with the statuses it was given, then 200, and keeps what came.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::eventually;

/// One callback as it came in.
#[derive(Debug, Clone)]
pub struct Callback {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Callback {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What a callback is answered with: a status, and perhaps a header.
#[derive(Debug, Clone)]
pub struct Reply(pub u16, pub Option<(&'static str, String)>);

pub struct Receiver {
    pub url: String,
    callbacks: Arc<Mutex<Vec<Callback>>>,
    server: JoinHandle<()>,
}

impl Receiver {
    pub async fn start(statuses: &[u16]) -> Self {
        Self::answering(statuses.iter().map(|status| Reply(*status, None)).collect()).await
    }

    pub async fn answering(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let callbacks = Arc::<Mutex<Vec<Callback>>>::default();
        let replies = Arc::new(Mutex::new(VecDeque::from(replies)));
        let kept = Arc::clone(&callbacks);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, replies) = (Arc::clone(&kept), Arc::clone(&replies));
                let answer =
                    service_fn(move |request| answer(request, Arc::clone(&kept), Arc::clone(&replies)));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
        Self { url, callbacks, server }
    }

    pub fn count(&self) -> usize {
        self.callbacks.lock().unwrap().len()
    }

    pub fn all(&self) -> Vec<Callback> {
        self.callbacks.lock().unwrap().clone()
    }

    /// Waits for the `n`th callback.
    pub async fn nth(&self, n: usize) -> Callback {
        eventually(async || self.all().get(n - 1).cloned()).await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    kept: Arc<Mutex<Vec<Callback>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    kept.lock().unwrap().push(Callback { headers: head.headers, body });
    let Reply(status, header) = replies.lock().unwrap().pop_front().unwrap_or(Reply(200, None));
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    if response.status().is_redirection() {
        response.headers_mut().insert("location", "http://127.0.0.1:1/elsewhere".parse().unwrap());
    }
    Ok(response)
}
