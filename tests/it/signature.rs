//! `darkroom signature` as a script uses it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

// The first vector of the reference libraries.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIMESTAMP: &str = "1614265330";
const BODY: &str = r#"{"test": 2432232314}"#;
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// Files that the commands name, in a folder of their own.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("secret", &format!("{SECRET}\n"));
        files.write("other-secret", OTHER_SECRET);
        files.write("body", BODY);
        files.write("headers", &headers());
        files
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn run(&self, line: &str) -> Output {
        self.run_with(line, "")
    }

    fn run_with(&self, line: &str, stdin: &str) -> Output {
        run(self.0.path(), &line.split(' ').collect::<Vec<_>>(), stdin)
    }
}

fn headers() -> String {
    format!("webhook-id: {ID}\nwebhook-timestamp: {TIMESTAMP}\nwebhook-signature: {SIGNATURE}\n")
}

fn run(folder: &Path, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_darkroom"))
        .arg("signature")
        .args(args)
        .current_dir(folder)
        .env_remove("DARKROOM_SECRET")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that fails early reads nothing.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(!said.contains("MfKQ9r8GKYqrTwj") && !said.contains("C2FVsBQIhrscChlQ"), "a secret in {said}");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_is_signed_is_the_reference_libraries_vector() {
    let files = Files::new();
    let sign = format!("sign --id {ID} --timestamp {TIMESTAMP}");
    for (args, stdin) in
        [("--secret-file secret body", ""), ("--secret-file secret", BODY), ("--secret-file - body", SECRET)]
    {
        let output = files.run_with(&format!("{sign} {args}"), stdin);
        assert_eq!((text(&output.stdout), output.status.code()), (headers(), Some(0)), "{args}");
    }
    let rotated =
        json(&files.run(&format!("{sign} --secret-file secret --secret-file other-secret --json body")));
    let value = rotated["webhook-signature"].as_str().unwrap();
    assert!(value.starts_with(&format!("{SIGNATURE} v1,")), "{value}");
}

#[test]
fn what_is_signed_verifies_and_what_was_changed_does_not() {
    let files = Files::new();
    let signed = files.run("sign --id evt_1 --secret-file secret body");
    files.write("fresh", &text(&signed.stdout));
    let output = files.run("verify --headers fresh --secret-file other-secret --secret-file secret body");
    assert_eq!((text(&output.stdout), output.status.code()), ("verified\n".to_owned(), Some(0)));
    let changed = files.run_with("verify --headers fresh --secret-file secret", "{}");
    assert_eq!(changed.status.code(), Some(1));
    assert!(text(&changed.stderr).contains("no v1 signature matches"), "{}", text(&changed.stderr));
    let other = files.run("verify --headers fresh --secret-file other-secret --json body");
    assert_eq!((&json(&other)["verified"], other.status.code()), (&false.into(), Some(1)));
}

#[test]
fn a_callback_is_verified_as_of_when_it_was_received() {
    let files = Files::new();
    let verify = "verify --headers headers --secret-file secret body";
    assert_eq!(files.run(&format!("{verify} --at {TIMESTAMP}")).status.code(), Some(0));
    let late = files.run(verify);
    assert_eq!(late.status.code(), Some(1));
    assert!(text(&late.stderr).contains("s ago"), "{}", text(&late.stderr));
}

#[test]
fn headers_can_be_named_one_by_one() {
    let files = Files::new();
    let lines = headers();
    let mut args = vec!["verify", "--secret-file", "secret", "--at", TIMESTAMP, "body"];
    args.extend(lines.lines().flat_map(|line| ["--header", line]));
    assert_eq!(run(files.0.path(), &args, "").status.code(), Some(0));
}

#[test]
fn an_explanation_says_what_went_wrong() {
    let files = Files::new();
    let explain = format!("explain --at {TIMESTAMP}");
    files.write("pretty", "{\n  \"test\": 2432232314\n}\n");
    files.write("svix", &headers().replace("webhook-", "svix-"));
    files.write("hex", &headers().replace(SIGNATURE, &format!("v1,{}", "ab".repeat(32))));
    for (args, says) in [
        (
            "--headers headers --secret-file secret pretty",
            "read as JSON and written again; signed was JSON with a space",
        ),
        ("--headers headers --secret-file other-secret body", "another secret was used"),
        ("--headers svix --secret-file secret body", "it came as svix-timestamp"),
        ("--headers hex --secret-file secret body", "written in hexadecimal"),
        ("--headers headers body", "no secret was given"),
    ] {
        let output = files.run(&format!("{explain} {args}"));
        let said = text(&output.stdout);
        assert!(said.starts_with("not verified\n- ") && said.contains(says), "{args}: {said}");
        assert_eq!(output.status.code(), Some(1), "{args}");
    }
    let late = files.run("explain --headers headers --secret-file secret --json body");
    let late = json(&late);
    let kinds: Vec<_> = late["findings"].as_array().unwrap().iter().map(|found| &found["kind"]).collect();
    assert_eq!(kinds, ["too_old", "matches"]);
    assert!(late["findings"][0]["message"].as_str().unwrap().contains("at most 300"), "{late}");
    let good = files
        .run(&format!("{explain} --headers headers --secret-file other-secret --secret-file secret body"));
    let said = "verified\n- signature 1 was made with secret 2\n".to_owned();
    assert_eq!((text(&good.stdout), good.status.code()), (said, Some(0)));
}

#[test]
fn no_explanation_tells_the_right_signature() {
    let files = Files::new();
    files.write("forged", &headers().replace(SIGNATURE, "v1,AAAA"));
    for args in ["--json body", "body"] {
        let output = files.run(&format!("explain --headers forged --secret-file secret {args}"));
        assert!(!text(&output.stdout).contains("g0hM9SsE"), "{}", text(&output.stdout));
    }
}

#[test]
fn what_cannot_be_done_is_a_usage_error() {
    let files = Files::new();
    files.write("long", &"x".repeat((1 << 20) + 1));
    for line in [
        "sign --id evt_1 body",
        "sign --id evt.1 --secret-file secret body",
        "sign --id evt_1 --secret-file body body",
        "sign --id evt_1 --secret-file -",
        "sign --id evt_1 --secret-file secret long",
        "verify --headers - --secret-file secret",
        "verify --headers secret --secret-file secret body",
        "verify --header webhook-id --secret-file secret body",
        "explain --at 99999999999999999 body",
        "prove",
        // What cannot be read is no forgery.
        "verify --secret-file nowhere body",
        "verify --headers nowhere --secret-file secret body",
        "verify --headers headers --secret-file secret nowhere",
    ] {
        let output = files.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}: {}", text(&output.stderr));
    }
}
