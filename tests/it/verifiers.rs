//! Our callbacks, verified by the Standard Webhooks libraries of other languages.
//!
//! `.ci/run` installs them; where one is missing its test says so, and under `CI=true` it fails.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::receiver::Receiver;
use crate::support::{App, picture};

/// Runs one of `tests/verifiers/` on a real callback and on a changed one.
async fn verified_by(program: &Path, script: &str) {
    let app = App::start().await;
    let receiver = Receiver::start(&[]).await;
    app.accepted(
        picture::jpeg(40, 30),
        &[("callback_url", &receiver.url), ("metadata", r#"{"name":"Ærø"}"#)],
    )
    .await;
    let callback = receiver.nth(1).await;
    let headers: serde_json::Map<_, _> = callback
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
        .collect();
    let body = String::from_utf8(callback.body.to_vec()).unwrap();
    let check = |body: &str| {
        run(program, script, &json!({"secret": app.signing_secret(), "headers": headers, "body": body}))
    };
    let (ok, said) = check(&body);
    assert!(ok, "{said}");
    let (ok, _) = check(&body.replace("job.completed", "job.cancelled"));
    assert!(!ok, "a changed body was verified");
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
fn part(variable: &str) -> Option<std::path::PathBuf> {
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
