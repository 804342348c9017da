//! The secrets that sign callbacks: rotated, sealed at rest, and shown once.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use darkroom::app::{self, StartError};
use darkroom::clock::Clock;
use darkroom::domain::secret::SigningSecret;
use darkroom::notify::webhook::ed25519::PublicKey;
use darkroom::notify::webhook::signature;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::receiver::{Callback, Receiver};
use crate::support::{App, Flags, bounded, config, picture, text};

const NOON: &str = "2026-11-21T12:00:00Z";
const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const OTHER_KEY: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

async fn rotate(app: &App, query: &str) -> Response {
    app.http.post(app.url(&format!("/v1/secrets/rotate{query}"))).send().await.unwrap()
}

async fn rotated(app: &App, query: &str) -> Value {
    let response = rotate(app, query).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["cache-control"], "no-store");
    response.json().await.unwrap()
}

/// Which of these made the callback's signatures, in their order; fails if there are others.
fn signed_by<'a>(callback: &Callback, secrets: &[&'a str]) -> Vec<&'a str> {
    let at: i64 = callback.header("webhook-timestamp").parse().unwrap();
    let now = Timestamp::from_second(at).unwrap();
    let signatures: Vec<_> = callback.header("webhook-signature").split(' ').collect();
    let signer = |signature: &&str| {
        let mut headers = callback.headers.clone();
        headers.insert("webhook-signature", signature.parse().unwrap());
        let made = |secret: &&&str| {
            let secret: SigningSecret = secret.parse().unwrap();
            signature::verify(&secret, &headers, &callback.body, now).is_ok()
        };
        *secrets.iter().find(made).unwrap_or_else(|| panic!("{signature} is nobody's"))
    };
    signatures.iter().map(signer).collect()
}

async fn told(app: &App, receiver: &Receiver, n: usize) -> Callback {
    app.accepted(picture::jpeg(40, 30), &[("callback_url", &receiver.url)]).await;
    receiver.nth(n).await
}

#[tokio::test]
async fn old_and_new_sign_until_the_overlap_is_over() {
    let clock = Clock::manual(NOON.parse().unwrap());
    let app = App::with(&[], clock.clone()).await;
    let receiver = Receiver::start(&[200, 503]).await;
    let first = app.signing_secret();
    assert_eq!(signed_by(&told(&app, &receiver, 1).await, &[&first]), [first.as_str()]);

    let new = rotated(&app, "?overlap_seconds=3600").await;
    let second = text(&new, "/secret").to_owned();
    assert_eq!(STANDARD.decode(second.strip_prefix("whsec_").unwrap()).unwrap().len(), 32);
    assert_eq!(app.signing_secret(), second, "the file has the newest");
    let both = [second.as_str(), first.as_str()];
    assert_eq!(signed_by(&told(&app, &receiver, 2).await, &both), both);

    let list = app.get_json("/v1/secrets").await;
    assert!(!list.to_string().contains("whsec_"), "{list}");
    let states: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| &item["state"]).collect();
    assert_eq!(states, ["current", "overlap"]);
    assert_eq!(
        (&list["items"][0]["id"], &list["items"][0]["fingerprint"]),
        (&new["id"], &new["fingerprint"])
    );
    assert_eq!(text(&list, "/items/1/expires_at"), "2026-11-21T13:00:00.000Z");

    // Its retry, and what else is sent, after a restart.
    let app = App::on(app.stop().await, &[], clock.clone()).await;
    assert_eq!(app.get_json("/v1/secrets").await["items"], list["items"]);
    clock.set(clock.now().checked_add(SignedDuration::from_secs(60)).unwrap());
    assert_eq!(signed_by(&receiver.nth(3).await, &both), both);

    clock.set("2026-11-21T12:59:59.999Z".parse().unwrap());
    assert_eq!(signed_by(&told(&app, &receiver, 4).await, &both), both);
    clock.set("2026-11-21T13:00:00Z".parse().unwrap());
    assert_eq!(signed_by(&told(&app, &receiver, 5).await, &both), [second.as_str()]);
    assert_eq!(app.get_json("/v1/secrets").await["items"].as_array().unwrap().len(), 1);

    let third = rotated(&app, "?overlap_seconds=0").await;
    let third = text(&third, "/secret");
    assert_eq!(signed_by(&told(&app, &receiver, 6).await, &[third, &second]), [third]);
    app.stop().await;
}

#[tokio::test]
async fn a_jobs_own_secret_signs_alone_whatever_is_rotated() {
    let app = App::start().await;
    let receiver = Receiver::start(&[]).await;
    let own = SigningSecret::from_entropy([9; 32]).expose_text();
    rotated(&app, "").await;
    let fields = [("callback_url", receiver.url.as_str()), ("callback_secret", &own)];
    app.accepted(picture::jpeg(40, 30), &fields).await;
    assert_eq!(signed_by(&receiver.nth(1).await, &[&own]), [own.as_str()]);
    app.stop().await;
}

#[tokio::test]
async fn what_cannot_be_rotated_is_refused_and_says_why() {
    let app = App::with(&[], Clock::manual(NOON.parse().unwrap())).await;
    for query in ["?overlap_seconds=-1", "?overlap_seconds=604801", "?overlap_seconds=x", "?overlap=1"] {
        assert_eq!(rotate(&app, query).await.status(), StatusCode::BAD_REQUEST, "{query}");
    }
    for _ in 0..9 {
        rotated(&app, "?overlap_seconds=604800").await;
    }
    let list = app.get_json("/v1/secrets").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 10);
    let refused = rotate(&app, "").await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    assert!(refused.text().await.unwrap().contains("10 secrets"));
    assert_eq!(app.get_json("/v1/secrets").await, list);
    app.stop().await;

    let secret = SigningSecret::from_entropy([8; 32]).expose_text();
    let app = App::with(&[("callbacks.signing_secret", &secret)], Clock::system()).await;
    let list = app.get_json("/v1/secrets").await;
    assert_eq!((&list["items"][0]["state"], &list["items"][0]["id"]), (&"current".into(), &Value::Null));
    assert!(list.pointer("/_links/rotate").is_none() && !list.to_string().contains("whsec_"), "{list}");
    let refused = rotate(&app, "").await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    let problem = refused.text().await.unwrap();
    assert!(problem.contains("callbacks.signing_secret") && !problem.contains("whsec_"), "{problem}");
    app.stop().await;
}

/// Every byte of the store's files.
fn store_bytes(folder: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(folder.join("store")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).unwrap()).collect()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn no_secret_lies_in_the_store_as_it_is() {
    let app = App::with(&[("callbacks.ed25519", "true")], Clock::system()).await;
    let receiver = Receiver::start(&[]).await;
    let own: [u8; 32] = *b"a-job's-own-secret-is-recognised";
    let client: SigningSecret = app.signing_secret().parse().unwrap();
    let newer: SigningSecret = text(&rotated(&app, "").await, "/secret").parse().unwrap();
    let own = SigningSecret::from_entropy(own);
    let fields = [
        ("callback_url", receiver.url.as_str()),
        ("callback_secret", &own.expose_text()),
        ("callback_headers", r#"{"authorization":"Bearer recognised-token"}"#),
        ("metadata", r#"{"what":"is to be found"}"#),
    ];
    let job = app.accepted(picture::jpeg(40, 30), &fields).await;
    app.job_when(text(&job, "/id"), |job| job["callback"]["status"] == "delivered").await;
    let folder = app.stop().await;
    let bytes = store_bytes(folder.path());
    assert!(
        holds(&bytes, b"is to be found") && holds(&bytes, b"authorization"),
        "it is looked at the right place"
    );
    for secret in [&client, &newer, &own] {
        assert!(!holds(&bytes, secret.expose_bytes()));
        assert!(!holds(&bytes, &secret.expose_text().as_bytes()[6..30]));
    }
    assert!(!holds(&bytes, b"recognised-token"));
    let key = std::fs::read_to_string(folder.path().join("encryption-key")).unwrap();
    assert!(!holds(&bytes, &STANDARD.decode(key.trim()).unwrap()));
    #[cfg(unix)]
    for file in ["encryption-key", "signing-secret"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

/// Why it does not start.
async fn refusal(folder: &TempDir, flags: Flags<'_>) -> String {
    match bounded(app::start(config(folder.path(), flags), Clock::system())).await {
        Err(error @ StartError::SealedElsewhere { .. }) => error.to_string(),
        Err(error) => panic!("refused for something else: {error}"),
        Ok(_) => panic!("started"),
    }
}

#[tokio::test]
async fn a_start_without_the_key_is_refused_and_changes_nothing() {
    let receiver = Receiver::start(&[503]).await;
    let app = App::start().await;
    let (secret, own) = (app.signing_secret(), SigningSecret::from_entropy([9; 32]).expose_text());
    let fields = [("callback_url", receiver.url.as_str()), ("callback_secret", &own)];
    let job = app.accepted(picture::jpeg(40, 30), &fields).await;
    receiver.nth(1).await;
    let folder = app.stop().await;

    let (file, aside) = (folder.path().join("encryption-key"), folder.path().join("aside"));
    std::fs::rename(&file, &aside).unwrap();
    let said = refusal(&folder, &[]).await;
    assert!(said.contains("encryption-key") && said.contains("storage.encryption_key"), "{said}");
    assert!(!file.exists(), "no other key takes its place");
    let said = refusal(&folder, &[("storage.encryption_key", KEY)]).await;
    assert!(!said.contains(KEY), "{said}");
    // Also where the service's own secret is not of the store.
    refusal(&folder, &[("storage.encryption_key", KEY), ("callbacks.signing_secret", &own)]).await;

    std::fs::rename(&aside, &file).unwrap();
    let app = App::on(folder, &[], Clock::system()).await;
    assert_eq!(app.signing_secret(), secret);
    assert_eq!(app.get_json("/v1/secrets").await["items"].as_array().unwrap().len(), 1);
    app.job_when(text(&job, "/id"), |job| job["callback"]["status"] == "delivered").await;
    assert_eq!(signed_by(&receiver.nth(2).await, &[&own]), [own.as_str()]);
    app.stop().await;
}

#[tokio::test]
async fn a_key_is_changed_and_what_the_old_one_sealed_still_opens() {
    let receiver = Receiver::start(&[503]).await;
    let app = App::with(&[("storage.encryption_key", KEY)], Clock::system()).await;
    assert!(!app.folder.path().join("encryption-key").exists(), "a configured key is in no file");
    let own = SigningSecret::from_entropy([9; 32]).expose_text();
    let fields = [("callback_url", receiver.url.as_str()), ("callback_secret", &own)];
    let job = app.accepted(picture::jpeg(40, 30), &fields).await;
    receiver.nth(1).await;
    let folder = app.stop().await;

    let changed = [("storage.encryption_key", OTHER_KEY)];
    refusal(&folder, &changed).await;
    let mut config = config(folder.path(), &changed);
    let previous = format!("[{KEY:?}]");
    config.storage.previous_encryption_keys = serde_json::from_str(&previous).unwrap();
    let running = bounded(app::start(config, Clock::system())).await.unwrap();
    let app = App { running, http: reqwest::Client::builder().no_proxy().build().unwrap(), folder };
    app.job_when(text(&job, "/id"), |job| job["callback"]["status"] == "delivered").await;
    assert_eq!(signed_by(&receiver.nth(2).await, &[&own]), [own.as_str()]);
    let folder = app.stop().await;
    // The job still holds what the first key sealed.
    refusal(&folder, &changed).await;
}

#[tokio::test]
async fn a_secret_that_was_put_into_the_file_signs_beside_the_old_one() {
    let receiver = Receiver::start(&[]).await;
    let app = App::start().await;
    let old = app.signing_secret();
    let folder = app.stop().await;
    let own = SigningSecret::from_entropy([9; 32]).expose_text();
    std::fs::write(folder.path().join("signing-secret"), &own).unwrap();
    let app = App::on(folder, &[], Clock::system()).await;
    let both = [own.as_str(), old.as_str()];
    assert_eq!(signed_by(&told(&app, &receiver, 1).await, &both), both);
    let folder = app.stop().await;
    std::fs::remove_file(folder.path().join("signing-secret")).unwrap();
    let app = App::on(folder, &[], Clock::system()).await;
    assert_eq!(app.signing_secret(), own, "the file is made again");
    app.stop().await;
}

#[tokio::test]
async fn the_public_key_is_published_and_stays() {
    let app = App::start().await;
    assert_eq!(app.get_json("/.well-known/webhook-keys").await["keys"], serde_json::json!([]));
    let folder = app.stop().await;
    let app = App::on(folder, &[("callbacks.ed25519", "true")], Clock::system()).await;
    let keys = app.get_json("/.well-known/webhook-keys").await;
    let key = &keys["keys"][0];
    assert_eq!(
        (&key["kty"], &key["crv"], &key["alg"]),
        (&"OKP".into(), &"Ed25519".into(), &"Ed25519".into())
    );
    let public: PublicKey = text(key, "/public_key").parse().unwrap();
    assert_eq!(URL_SAFE_NO_PAD.decode(text(key, "/x")).unwrap(), public.as_bytes());
    let folder = app.stop().await;
    let app = App::on(folder, &[("callbacks.ed25519", "true")], Clock::system()).await;
    assert_eq!(app.get_json("/.well-known/webhook-keys").await, keys);

    let receiver = Receiver::start(&[]).await;
    let callback = told(&app, &receiver, 1).await;
    let signatures: Vec<_> = callback.header("webhook-signature").split(' ').collect();
    let signature = signatures.iter().find_map(|one| one.strip_prefix("v1a,")).unwrap();
    let head = format!("{}.{}.", callback.header("webhook-id"), callback.header("webhook-timestamp"));
    let signed = [head.as_bytes(), &callback.body].concat();
    assert!(public.verify(&signed, &STANDARD.decode(signature).unwrap()));
    assert_eq!(signatures.len(), 2);
    app.stop().await;
}

async fn darkroom(args: &[&str], url: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    command.args(args).env("DARKROOM_URL", url).env_remove("DARKROOM_TOKEN");
    bounded(tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap()
}

#[tokio::test]
async fn the_command_line_lists_and_rotates() {
    let app = App::start().await;
    let url = app.running.base_url();
    let new = darkroom(&["secrets", "rotate", "--overlap", "2h"], url).await;
    let new = String::from_utf8(new.stdout).unwrap();
    assert_eq!(new.trim(), app.signing_secret());
    let shown = darkroom(&["secrets", "list"], url).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("current") && shown.contains("overlap") && !shown.contains("whsec_"), "{shown}");
    let again = darkroom(&["secrets", "rotate", "--overlap", "0s", "--json"], url).await;
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(text(&again, "/secret"), app.signing_secret());
    let listed = darkroom(&["secrets", "list", "--json"], url).await;
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((listed["items"].as_array().unwrap().len(), &listed["items"][0]["id"]), (1, &again["id"]));
    app.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_new_secret_that_nobody_can_read_is_told_where_to_find() {
    let app = App::start().await;
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    // The other end is closed.
    let (_, closed) = std::io::pipe().unwrap();
    for (stdout, format) in [(Stdio::from(full), "--json"), (Stdio::from(closed), "--overlap=1h")] {
        let before = app.signing_secret();
        let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
        command.args(["secrets", "rotate", format]).env("DARKROOM_URL", app.running.base_url());
        command.env_remove("DARKROOM_TOKEN").stdout(stdout).stderr(Stdio::piped());
        let run = move || command.spawn().and_then(std::process::Child::wait_with_output).unwrap();
        let output = bounded(tokio::task::spawn_blocking(run)).await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("was rotated") && said.contains("signing-secret"), "{said}");
        let after = app.signing_secret();
        assert!(before != after && !said.contains(&after), "{said}");
    }
    app.stop().await;
}
