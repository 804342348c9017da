//! A receiver in a process of its own: many ports, and 204 to everything. Each arrival is a line on standard output.

use std::convert::Infallible;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt as _, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Prints the ports in one line, then `id microseconds` for each callback, and ends with its standard input.
pub(crate) async fn run(ports: usize) {
    let mut names = Vec::new();
    for _ in 0..ports {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        names.push(listener.local_addr().unwrap().port().to_string());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = stream.set_nodelay(true);
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service_fn(answer)),
                );
            }
        });
    }
    println!("{}", names.join(" "));
    let mut line = String::new();
    tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line)).await.unwrap().unwrap();
    std::process::exit(0);
}

async fn answer(
    request: hyper::Request<hyper::body::Incoming>,
) -> Result<hyper::Response<Empty<bytes::Bytes>>, Infallible> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let id = request.headers().get("webhook-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let says = request.uri().path() == "/say";
    let _ = request.into_body().collect().await;
    if let Some(id) = id.filter(|_| says) {
        let _ = writeln!(std::io::stdout().lock(), "{id} {now}");
    }
    let mut response = hyper::Response::new(Empty::new());
    *response.status_mut() = hyper::StatusCode::NO_CONTENT;
    Ok(response)
}
