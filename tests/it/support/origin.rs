//! Where pictures are fetched from: a server that speaks bytes, so that it can say anything, or nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::eventually;

/// What a request meets.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes, and then nothing more.
    Silence(Vec<u8>),
    /// These bytes, and then one after another for ever.
    Drip(Vec<u8>),
    /// These bytes, and then more and more.
    Endless(Vec<u8>),
}

impl Answer {
    /// A whole answer with this status line, headers and body.
    pub fn whole(status: &str, headers: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        Self::Bytes([head.as_bytes(), body].concat())
    }

    pub fn picture(bytes: &[u8]) -> Self {
        Self::whole("200 OK", "Content-Type: image/jpeg\r\n", bytes)
    }

    pub fn nothing() -> Self {
        Self::Silence(Vec::new())
    }
}

/// A server; one answer for each request, and the last for all that follow.
pub struct Origin {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
    /// Connections that the other side has closed.
    closed: Arc<Mutex<usize>>,
    server: JoinHandle<()>,
}

impl Origin {
    pub async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, closed) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<usize>>::default());
        let (heard, gone) = (Arc::clone(&requests), Arc::clone(&closed));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (heard, gone, answers) = (Arc::clone(&heard), Arc::clone(&gone), answers.clone());
                tokio::spawn(async move {
                    serve(stream, &answers, &heard).await;
                    *gone.lock().unwrap() += 1;
                });
            }
        });
        Self { url, requests, closed, server }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The heads of the requests that came.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Waits until so many requests have come.
    pub async fn asked(&self, times: usize) {
        eventually(async || (self.requests().len() >= times).then_some(())).await;
    }

    /// Waits until so many connections have ended.
    pub async fn left(&self, times: usize) {
        eventually(async || (*self.closed.lock().unwrap() >= times).then_some(())).await;
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut stream: TcpStream, answers: &[Answer], heard: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => head.extend_from_slice(&buffer[..n]),
            _ => return,
        }
    }
    let answer = {
        let mut heard = heard.lock().unwrap();
        heard.push(String::from_utf8(head).unwrap());
        answers[(heard.len() - 1).min(answers.len() - 1)].clone()
    };
    let (Answer::Bytes(bytes) | Answer::Silence(bytes) | Answer::Drip(bytes) | Answer::Endless(bytes)) =
        &answer;
    // What fails from here on is that the other side has had enough.
    let mut said = stream.write_all(bytes).await;
    match answer {
        Answer::Bytes(_) => {}
        Answer::Silence(_) => while matches!(stream.read(&mut buffer).await, Ok(n) if n > 0) {},
        Answer::Drip(_) => {
            while said.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                said = stream.write_all(b"x").await;
            }
        }
        Answer::Endless(_) => {
            while said.is_ok() {
                said = stream.write_all(&buffer).await;
            }
        }
    }
    let _ = stream.shutdown().await;
}
