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

pub struct Receiver {
    pub url: String,
    callbacks: Arc<Mutex<Vec<Callback>>>,
    server: JoinHandle<()>,
}

impl Receiver {
    pub async fn start(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let callbacks = Arc::<Mutex<Vec<Callback>>>::default();
        let statuses = Arc::new(Mutex::new(VecDeque::from(statuses.to_vec())));
        let kept = Arc::clone(&callbacks);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, statuses) = (Arc::clone(&kept), Arc::clone(&statuses));
                let answer =
                    service_fn(move |request| answer(request, Arc::clone(&kept), Arc::clone(&statuses)));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
        Self { url, callbacks, server }
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
    statuses: Arc<Mutex<VecDeque<u16>>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    kept.lock().unwrap().push(Callback { headers: head.headers, body });
    let status = statuses.lock().unwrap().pop_front().unwrap_or(200);
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if response.status().is_redirection() {
        response.headers_mut().insert("location", "http://127.0.0.1:1/elsewhere".parse().unwrap());
    }
    Ok(response)
}
