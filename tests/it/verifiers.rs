//! Our callbacks, verified by the Standard Webhooks libraries of other languages.
//!
//! `.ci/run` installs them; where one is missing its test says so, and under `CI=true` it fails.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use darkroom::clock::Clock;
use serde_json::json;

use crate::support::receiver::{Callback, Receiver};
use crate::support::{App, picture, text};

/// Runs one of `tests/verifiers/` on a real callback and on a changed one; then on one with two signatures, during a
/// rotation, and on its retry.
async fn verified_by(program: &Path, script: &str) {
    let app = App::with(&[("callbacks.retry_initial_ms", "50")], Clock::system()).await;
    let receiver = Receiver::start(&[200, 503]).await;
    let old = app.signing_secret();
    app.accepted(
        picture::jpeg(40, 30),
        &[("callback_url", &receiver.url), ("metadata", r#"{"name":"Ærø"}"#)],
    )
    .await;
    let callback = receiver.nth(1).await;
    let check = |callback: &Callback, secret: &str, body: &str| {
        let headers = callback.headers.iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
        let headers: serde_json::Map<_, _> = headers.collect();
        run(program, script, &json!({"secret": secret, "headers": headers, "body": body}))
    };
    let body = String::from_utf8(callback.body.to_vec()).unwrap();
    let (ok, said) = check(&callback, &old, &body);
    assert!(ok, "{said}");
    let (ok, _) = check(&callback, &old, &body.replace("job.completed", "job.cancelled"));
    assert!(!ok, "a changed body was verified");

    let rotated = app.http.post(app.url("/v1/secrets/rotate")).send().await.unwrap();
    let rotated: serde_json::Value = rotated.json().await.unwrap();
    app.accepted(picture::jpeg(40, 30), &[("callback_url", &receiver.url)]).await;
    for callback in [receiver.nth(2).await, receiver.nth(3).await] {
        let body = String::from_utf8(callback.body.to_vec()).unwrap();
        for secret in [text(&rotated, "/secret"), &old] {
            let (ok, said) = check(&callback, secret, &body);
            assert!(ok, "{said}");
        }
    }
    app.stop().await;
}

fn run(program: &Path, script: &str, input: &serde_json::Value) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifiers").join(script);
    let mut child = Command::new(program)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// What the environment variable names, or nothing where that is allowed.
pub fn part(variable: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os(variable).map(std::path::PathBuf::from);
    if path.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{variable} is not set: .ci/run installs what it names");
        eprintln!("skipped: {variable} is not set; .ci/run installs what it names");
    }
    path
}

#[tokio::test]
async fn the_python_library_verifies() {
    if let Some(python) = part("DARKROOM_TEST_PYTHON") {
        verified_by(&python, "verify.py").await;
    }
}

#[tokio::test]
async fn the_javascript_library_verifies() {
    if part("DARKROOM_TEST_NODE_MODULES").is_some() {
        verified_by(Path::new("node"), "verify.mjs").await;
    }
}
