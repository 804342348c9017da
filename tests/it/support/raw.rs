//! HTTP/1.1 over a bare socket: what is on the wire, and no library that hides some of it.

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::bounded;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Sends the head and the body on a connection of their own, and reads the answer to its end.
pub async fn exchange(address: &str, head: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    send(&mut stream, head, body).await;
    answer(&mut stream).await
}

/// `head` is the request line and its own header lines; `Host` and `Content-Length` are added unless they are there.
pub async fn send(stream: &mut TcpStream, head: &str, body: &[u8]) {
    let mut text = format!("{}\r\nConnection: close\r\n", head.trim().replace('\n', "\r\n"));
    for (name, value) in [("Host", "localhost".to_owned()), ("Content-Length", body.len().to_string())] {
        if !text.contains(&format!("\r\n{name}: ")) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    stream.write_all(&[text.as_bytes(), b"\r\n", body].concat()).await.unwrap();
}

/// Everything until the server closes the connection.
pub async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer, because not all of the request was read, is no part of it.
    let _ = bounded(stream.read_to_end(&mut bytes)).await;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
    });
    Answer { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() }
}
