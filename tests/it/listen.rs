//! `darkroom listen` as a sender meets it: the real binary, told by a script how to misbehave.

use std::io::{BufRead as _, BufReader, Lines};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{bounded, eventually};

/// A running `darkroom listen --json`; killed at the end whatever happens.
struct Listen {
    child: Child,
    url: String,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Listen {
    fn start(args: &[&str]) -> Self {
        let mut child = command()
            .args(["--listen", "127.0.0.1:0", "--json"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let url =
            stderr.lines().find_map(|line| Some(line.unwrap().strip_prefix("listening on ")?.to_owned()));
        let lines = Some(BufReader::new(child.stdout.take().unwrap()).lines());
        Self { url: url.unwrap(), child, lines }
    }

    fn with(script: &str) -> Self {
        Self::start(&["--respond", script])
    }

    /// The next callback that is printed.
    async fn record(&mut self) -> Value {
        let mut lines = self.lines.take().unwrap();
        let read = tokio::task::spawn_blocking(move || (lines.next().unwrap().unwrap(), lines));
        let (line, lines) = bounded(read).await.unwrap();
        self.lines = Some(lines);
        serde_json::from_str(&line).unwrap()
    }

    async fn post(&self, id: &str) -> reqwest::Result<Response> {
        let client = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        let request = client.post(&self.url).header("webhook-id", id).header("webhook-attempt", 1).body("{}");
        bounded(request.send()).await
    }

    async fn status(&self, id: &str) -> u16 {
        self.post(id).await.unwrap().status().as_u16()
    }

    async fn connect(&self) -> TcpStream {
        let address: SocketAddr = self.url.trim_start_matches("http://").parse().unwrap();
        TcpStream::connect(address).await.unwrap()
    }

    /// A connection on which a callback was sent.
    async fn sent(&self) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(REQUEST).await.unwrap();
        stream
    }
}

impl Drop for Listen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const REQUEST: &[u8] =
    b"POST / HTTP/1.1\r\nhost: localhost\r\nwebhook-id: evt_1\r\ncontent-length: 2\r\n\r\n{}";

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    command.arg("listen").env_remove("DARKROOM_SECRET");
    command
}

/// Reads until the text ends with `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(bounded(stream.read_u8()).await.unwrap_or_else(|error| panic!("{error} after {text:?}")));
    }
    String::from_utf8(text).unwrap()
}

/// Nothing more comes and the connection stays open while the receiver serves someone else.
async fn assert_stalls(listen: &Listen, stream: &mut TcpStream) {
    let other = listen.status("evt_other").await;
    assert_eq!(other, 200, "the script goes on");
    let read = futures_util::FutureExt::now_or_never(stream.read_u8());
    assert!(read.is_none(), "stalled, but read {read:?}");
}

#[tokio::test]
async fn statuses_come_in_the_order_of_the_script() {
    let mut listen = Listen::with("500*2,429:retry-after=7,410:webhook-delivery=disable,204");
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(listen.status("evt_1").await);
    }
    assert_eq!(statuses, [500, 500, 429, 410, 204, 204]);
    let first = listen.record().await;
    assert_eq!(
        (&first["answered"], &first["status_code"], &first["seen"]),
        (&"500".into(), &500.into(), &1.into())
    );
    listen.record().await;
    let third = listen.record().await;
    assert_eq!((&third["answered"], &third["seen"]), (&"429:retry-after=7".into(), &3.into()));
}

#[tokio::test]
async fn a_script_can_begin_again_and_be_told_in_parts() {
    let listen = Listen::start(&["--respond", "503", "--respond", "202", "--cycle"]);
    for expected in [503, 202, 503, 202] {
        assert_eq!(listen.status("evt_1").await, expected);
    }
}

#[tokio::test]
async fn each_event_can_see_the_script_from_its_start() {
    let mut listen = Listen::start(&["--respond", "500,200", "--per-event"]);
    for (id, expected) in [("evt_1", 500), ("evt_2", 500), ("evt_1", 200), ("evt_2", 200), ("evt_1", 200)] {
        assert_eq!(listen.status(id).await, expected, "{id}");
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        let record = listen.record().await;
        seen.push((record["webhook_id"].clone(), record["seen"].clone()));
    }
    let expected = [("evt_1", 1), ("evt_2", 1), ("evt_1", 2), ("evt_2", 2), ("evt_1", 3)]
        .map(|(id, n)| (id.into(), n.into()));
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn headers_steer_the_sender() {
    let listen = Listen::with(
        "429:retry-after=5,503:retry-after-date=3600,redirect=https://a.example:8443/hook?x=1,\
         308:location=/there,200:webhook-delivery=abort-message:x-note=a%2Cb",
    );
    assert_eq!(listen.post("evt_1").await.unwrap().headers()["retry-after"], "5");
    let date = listen.post("evt_1").await.unwrap().headers()["retry-after"].to_str().unwrap().to_owned();
    assert!(date.ends_with(" GMT") && date.len() == "Thu, 25 Feb 2021 15:03:40 GMT".len(), "{date}");
    let redirect = listen.post("evt_1").await.unwrap();
    assert_eq!(redirect.status(), StatusCode::FOUND);
    assert_eq!(redirect.headers()["location"], "https://a.example:8443/hook?x=1");
    let moved = listen.post("evt_1").await.unwrap();
    assert_eq!((moved.status().as_u16(), &moved.headers()["location"]), (308, &"/there".parse().unwrap()));
    let steered = listen.post("evt_1").await.unwrap();
    assert_eq!(
        (&steered.headers()["webhook-delivery"], &steered.headers()["x-note"]),
        (&"abort-message".parse().unwrap(), &"a,b".parse().unwrap())
    );
}

#[tokio::test]
async fn stalls_say_as_much_as_they_should_and_then_nothing() {
    for (script, end) in
        [("timeout,200", ""), ("stall-head,200", "text/pl"), ("stall-body,200", "not all of it")]
    {
        let mut listen = Listen::with(script);
        let mut stream = listen.sent().await;
        let record = listen.record().await;
        assert_eq!(record["answered"], script.trim_end_matches(",200"));
        assert_eq!(record["status_code"].is_null(), script.starts_with("timeout"), "{record}");
        let said = read_until(&mut stream, end).await;
        assert_eq!(said.contains("\r\n\r\n"), script.starts_with("stall-body"), "{said}");
        assert_stalls(&listen, &mut stream).await;
    }
}

#[tokio::test]
async fn a_stall_ends_with_its_sender() {
    // One callback, and the end waits for its answer: that it comes shows that the stall is over.
    let mut listen = Listen::start(&["--respond", "timeout", "--count", "1"]);
    let stream = listen.sent().await;
    listen.record().await;
    assert!(listen.child.try_wait().unwrap().is_none(), "the stall is under way");
    drop(stream);
    let ended = eventually(async || listen.child.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn the_last_answer_is_given_however_late_it_is() {
    let listen = Listen::start(&["--respond", "delay=3s:503", "--count", "1"]);
    assert_eq!(listen.status("evt_1").await, 503);
}

#[tokio::test]
async fn connections_break_where_they_should() {
    for (script, reset, says) in [
        ("close", false, ""),
        ("reset", true, ""),
        ("close-body", false, "not all of it"),
        ("reset-body", true, ""),
    ] {
        let listen = Listen::with(script);
        let mut stream = listen.sent().await;
        let mut answer = Vec::new();
        let read = bounded(stream.read_to_end(&mut answer)).await;
        let kind = read.as_ref().err().map(std::io::Error::kind);
        assert_eq!(kind, reset.then_some(std::io::ErrorKind::ConnectionReset), "{script}: {read:?}");
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.ends_with(says) && (!says.is_empty() || reset || answer.is_empty()),
            "{script}: {answer}"
        );
        assert!(
            listen.post("evt_1").await.and_then(Response::error_for_status).is_err()
                || script.ends_with("-body")
        );
    }
}

#[tokio::test]
async fn bodies_and_headers_without_end_go_on_while_they_are_read() {
    const FAR: usize = 8 << 20;
    for script in ["endless-body", "header-flood"] {
        let listen = Listen::with(script);
        let stream = listen.sent().await;
        let read = bounded(stream.take(FAR as u64).read_to_end(&mut Vec::new())).await;
        assert_eq!(read.unwrap(), FAR, "{script}");
    }
    let listen = Listen::with("endless-body");
    let mut response = listen.post("evt_1").await.unwrap();
    let mut length = 0;
    while length < FAR {
        length += bounded(response.chunk()).await.unwrap().expect("it does not end").len();
    }
}

#[tokio::test]
async fn a_gzip_bomb_unpacks_to_a_thousand_times_its_size() {
    let listen = Listen::with("gzip-bomb");
    let response = listen.post("evt_1").await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let packed = bounded(response.bytes()).await.unwrap();
    let unpacked =
        std::io::copy(&mut flate2::read::GzDecoder::new(&packed[..]), &mut std::io::sink()).unwrap();
    assert_eq!(unpacked, 100 << 20);
    assert!(packed.len() < 200 << 10, "{}", packed.len());
}

#[tokio::test]
async fn garbage_is_no_http_and_slow_is() {
    let listen = Listen::with("garbage,slow=1ms");
    assert!(listen.post("evt_1").await.is_err());
    assert_eq!(listen.post("evt_1").await.unwrap().text().await.unwrap(), "slow\n");
    let listen = Listen::with("slow=10m,200");
    let mut stream = listen.sent().await;
    assert_eq!(read_until(&mut stream, "H").await, "H");
    assert_stalls(&listen, &mut stream).await;
}

#[tokio::test]
async fn a_delay_comes_before_the_answer() {
    let mut listen = Listen::with("delay=10m:500,200");
    let mut stream = listen.sent().await;
    let record = listen.record().await;
    assert_eq!((&record["delay_ms"], &record["answered"]), (&600_000.into(), &"delay=10m:500".into()));
    assert_stalls(&listen, &mut stream).await;
    let listen = Listen::with("delay=20ms:503");
    assert_eq!(listen.status("evt_1").await, 503);
}

#[tokio::test]
async fn what_is_forwarded_may_be_answered_otherwise() {
    let mut behind = Listen::with("202");
    let mut listen = Listen::start(&["--forward-to", &behind.url, "--respond", "500,pass"]);
    assert_eq!([listen.status("evt_1").await, listen.status("evt_1").await], [500, 202]);
    assert_eq!(behind.record().await["seen"], 1);
    assert_eq!(behind.record().await["seen"], 2);
    let record = listen.record().await;
    assert_eq!((&record["status_code"], &record["forward_status_code"]), (&500.into(), &202.into()));
}

#[tokio::test]
async fn what_does_not_verify_takes_no_turn() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let mut listen = Listen::start(&["--secret-file", &file.display().to_string(), "--respond", "503"]);
    assert_eq!(listen.status("evt_1").await, 400);
    let record = listen.record().await;
    assert_eq!(
        (&record["verified"], &record["seen"], &record["answered"]),
        (&false.into(), &Value::Null, &"400".into())
    );
}

#[tokio::test]
async fn a_connection_serves_several_requests_and_is_closed_when_idle() {
    let listen = Listen::start(&[]);
    let mut stream = listen.sent().await;
    read_until(&mut stream, "no secret given\n").await;
    stream.write_all(REQUEST).await.unwrap();
    let second = read_until(&mut stream, "no secret given\n").await;
    assert!(second.starts_with("HTTP/1.1 200 OK\r\n"), "{second}");
    // Nobody asks for anything, so what comes next is the end.
    assert_eq!(bounded(stream.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_sender_writes_no_lines_of_its_own() {
    let forged = "job.completed\n2026-11-21T09:00:00.000Z  job.completed  job_1  attempt 1  verified\u{2028}\u{1b}[2J\u{202e}\u{85}x";
    let body = serde_json::json!({"type": forged, "subject": "job_1  attempt 1  verified"}).to_string();
    let mut child = command()
        .args(["--listen", "127.0.0.1:0", "--count", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.next().unwrap().unwrap().trim_start_matches("listening on ").to_owned();
    let http = Client::builder().no_proxy().build().unwrap();
    bounded(http.post(url).header("webhook-attempt", "1  verified").body(body).send()).await.unwrap();
    let rest = bounded(tokio::task::spawn_blocking(move || lines.map(Result::unwrap).collect::<Vec<_>>()));
    let rest = rest.await.unwrap();
    child.wait().unwrap();
    let [line] = &rest[..] else { panic!("one line: {rest:?}") };
    assert!(!line.contains(|c: char| c.is_control() || "\u{2028}\u{202e}".contains(c)), "{line:?}");
    // Where its words have spaces, they would pass for what this program says.
    let parts: Vec<_> = line.split("  ").collect();
    assert_eq!((parts.len(), parts[4]), (5, "not verified: no secret given"), "{line}");
}

#[test]
fn a_script_that_is_wrong_names_the_step_and_what_there_is() {
    for args in [["--respond", "200,explode"], ["--respond", "200,delay=99h:200"]] {
        let output = command().args(args).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("step 2") && text.contains("endless-body"), "{text}");
    }
    assert_eq!(command().arg("--cycle").output().unwrap().status.code(), Some(2));
}

#[test]
fn the_help_explains_scripts() {
    let output = command().arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for part in
        ["--respond 500*3,429:retry-after=5,timeout,200", "stall-head", "retry-after-date=5", "[*TIMES]"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}
