//! Export and import: what comes out is the store as it was at one moment, and what goes in goes on from there.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use darkroom::app::backup::{self, Summary};
use darkroom::clock::{Clock, entropy};
use darkroom::domain::client::ClientId;
use darkroom::domain::delivery::{Attempt, Verdict};
use darkroom::domain::dispatch::DispatchPolicy;
use darkroom::domain::event::EventKind;
use darkroom::domain::id::{JobId, WorkerId};
use darkroom::domain::image::{Format, Handling, Variant};
use darkroom::domain::job::{Callback, Input, JobStatus, NewJob, Priority};
use darkroom::domain::retry::RetryOverride;
use darkroom::domain::secret::SigningSecret;
use darkroom::notify::webhook::signature;
use darkroom::store::sled::{Options, SledStore};
use darkroom::store::{
    Ending, Idempotency, JobAction, JobQuery, Paused, Policy, Record, Store, StoreError, Submission,
};
use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::receiver::Receiver;
use crate::support::{App, bounded, eventually, form, picture, text};

async fn run(args: &[&str], url: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    command.args(args).env("DARKROOM_URL", url);
    bounded(tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap()
}

async fn succeeds(args: &[&str], url: &str) -> Value {
    let output = run(&[args, &["--json"]].concat(), url).await;
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn fails(args: &[&str], code: i32, says: &str) {
    let output = run(args, "http://127.0.0.1:1").await;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(said.contains(says), "{args:?}: {said}");
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

async fn check(file: &Path) -> Result<Summary, backup::Error> {
    backup::check(file.to_owned(), |_| ()).await
}

/// Opens a store in the data folder, away from the runtime's threads.
async fn open(folder: &Path) -> Arc<SledStore> {
    let path = folder.join("store");
    let opened = tokio::task::spawn_blocking(move || {
        // What has ended is due to be purged at once.
        let (keep_finished, keep_deleted) = (Duration::ZERO, Duration::ZERO);
        let policy = Policy {
            dispatch: DispatchPolicy::default(),
            source: "http://127.0.0.1:1".to_owned(),
            keep_finished,
            keep_deleted,
            keep_undelivered: Duration::ZERO,
        };
        SledStore::open(&path, Options { cache_bytes: 16 << 20, policy }, Clock::system().now()).unwrap()
    });
    Arc::new(opened.await.unwrap())
}

async fn faults(folder: &Path) -> Vec<String> {
    let store = open(folder).await;
    let faults = store.audit().await.unwrap().faults;
    store.close().await;
    faults
}

/// Everything that can be looked at, with each service's own URL left out.
async fn everything(app: &App, bases: &[&str]) -> Vec<String> {
    let mut seen = Vec::new();
    let mut paths = vec!["/v1/jobs?limit=200".to_owned(), "/v1/events?after=0&limit=200".to_owned()];
    for job in app.get_json("/v1/jobs?limit=200").await["items"].as_array().unwrap() {
        let path = format!("/v1/jobs/{}", text(job, "/id"));
        for artifact in job["artifacts"].as_array().unwrap() {
            paths.push(format!("{path}/artifacts/{}", text(artifact, "/name")));
        }
        paths.push(format!("{path}/artifacts/original"));
        paths.push(format!("{path}/deliveries"));
        for delivery in app.get_json(&format!("{path}/deliveries")).await["items"].as_array().unwrap() {
            paths.push(format!("/v1/deliveries/{}/attempts", text(delivery, "/id")));
        }
        paths.push(path);
    }
    for path in paths {
        let response = app.get(&path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let etag = response.headers().get("etag").cloned();
        let body = response.bytes().await.unwrap();
        let body = match std::str::from_utf8(&body) {
            Ok(text) => bases.iter().fold(text.to_owned(), |text, base| text.replace(base, "")),
            Err(_) => format!("{:?}", body.to_vec()),
        };
        seen.push(format!("{path} {etag:?} {body}"));
    }
    seen
}

async fn submit(app: &App, key: &str, picture: Vec<u8>, callback: &str) -> reqwest::Response {
    let request = app.http.post(app.url("/v1/jobs")).header("idempotency-key", key);
    request.multipart(form(picture, &[("callback_url", callback)])).send().await.unwrap()
}

#[tokio::test]
async fn what_was_exported_goes_on_elsewhere() {
    let clock = Clock::manual("2026-11-21T09:00:00Z".parse().unwrap());
    let app = App::with(&[], clock.clone()).await;
    let receiver = Receiver::start(&[200, 503]).await;
    let first: Value =
        submit(&app, "order-1", picture::jpeg(300, 200), &receiver.url).await.json().await.unwrap();
    app.job_when(text(&first, "/id"), |job| job["callback"]["status"] == "delivered").await;
    let second: Value =
        submit(&app, "order-2", picture::png_with_alpha(90, 60), &receiver.url).await.json().await.unwrap();
    let id = text(&second, "/id");
    let waiting = |job: &Value| job["callback"]["status"] == "pending" && job["callback"]["attempts"] == 1;
    let waits = app.job_when(id, waiting).await;
    let old_base = app.running.base_url().to_owned();
    let before = everything(&app, &[&old_base]).await;
    let secret = app.signing_secret();
    let source = app.stop().await;

    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("backup.tar");
    let exported = succeeds(&["export", arg(&file), "--data-dir", arg(source.path())], "").await;
    assert_eq!((exported["pictures"].as_u64(), exported["missing"].as_u64()), (Some(8), Some(0)));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    fails(&["export", arg(&file), "--data-dir", arg(source.path())], 2, "--force").await;
    succeeds(&["export", arg(&file), "--force", "--data-dir", arg(source.path())], "").await;
    // All that there was is in the file now.
    drop(source);

    let target = tempfile::tempdir().unwrap();
    let into = arg(target.path());
    let checked = succeeds(&["import", arg(&file), "--data-dir", into, "--dry-run"], "").await;
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0, "a dry run writes nothing");
    let imported = succeeds(&["import", arg(&file), "--data-dir", into], "").await;
    assert_eq!((&checked, imported["signing_secret"].as_bool()), (&imported, Some(true)));
    fails(&["import", arg(&file), "--data-dir", into], 1, "is there already").await;
    assert_eq!(faults(target.path()).await, Vec::<String>::new());

    let app = App::on(target, &[], clock.clone()).await;
    assert_eq!(app.signing_secret(), secret);
    assert_eq!(everything(&app, &[&old_base, app.running.base_url()]).await, before);
    let again = submit(&app, "order-1", picture::jpeg(300, 200), &receiver.url).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(text(&again.json().await.unwrap(), "/id"), text(&first, "/id"));
    let reused = submit(&app, "order-1", picture::jpeg(300, 201), &receiver.url).await;
    assert_eq!(reused.status(), StatusCode::UNPROCESSABLE_ENTITY);

    assert_eq!(receiver.all().len(), 2);
    clock.set(text(&waits, "/callback/next_attempt_at").parse().unwrap());
    app.job_when(id, |job| job["callback"]["status"] == "delivered").await;
    let (failed, arrived) = (receiver.nth(2).await, receiver.nth(3).await);
    assert_eq!((arrived.header("webhook-id"), &arrived.body), (failed.header("webhook-id"), &failed.body));
    let secret: SigningSecret = secret.parse().unwrap();
    signature::verify(&secret, &arrived.headers, &arrived.body, clock.now()).unwrap();
    // The log goes on where it was.
    let third = app.accepted(picture::jpeg(20, 20), &[]).await;
    app.finished(text(&third, "/id")).await;
    let feed = app.get_json("/v1/events?after=6").await;
    assert_eq!(feed["items"][0]["seq"], 7, "{feed}");
    let target = app.stop().await;
    assert_eq!(faults(target.path()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_service_is_asked_and_goes_on() {
    let app = Arc::new(App::start().await);
    let mut acknowledged = Vec::new();
    for n in 0..10 {
        let job = app.accepted(picture::jpeg(60 + n, 40), &[]).await;
        acknowledged.push(text(&job, "/id").to_owned());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (app, stop) = (Arc::clone(&app), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::Relaxed) {
                app.accepted(picture::jpeg(50, 40), &[]).await;
            }
        }
    });
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("backup.tar");
    let exporting = ["export", arg(&file), "--data-dir", arg(app.folder.path())];
    let exported = succeeds(&exporting, app.running.base_url()).await;
    assert_eq!(exported["missing"], 0);
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "no part is left");
    fails(&["export", arg(&place.path().join("b")), "--data-dir", arg(app.folder.path())], 1, "cannot reach")
        .await;
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "no part is left");
    Arc::into_inner(app).unwrap().stop().await;

    let target = tempfile::tempdir().unwrap();
    succeeds(&["import", arg(&file), "--data-dir", arg(target.path())], "").await;
    assert_eq!(faults(target.path()).await, Vec::<String>::new());
    let copy = App::on(target, &[], Clock::system()).await;
    for id in &acknowledged {
        let job = copy.finished(id).await;
        assert_eq!(text(&job, "/status"), "completed");
        let thumbnail = copy.get(&format!("/v1/jobs/{id}/artifacts/thumbnail")).await.bytes().await.unwrap();
        assert_eq!(picture::decode(&thumbnail).height(), 40);
    }
    copy.stop().await;
}

fn submission(n: u64) -> Submission {
    let id = JobId::new(Clock::system().now(), &entropy());
    let input =
        Input { filename: None, format: Format::Jpeg, bytes: 1, width: 1, height: 1, sha256: [0; 32] };
    let callback = Callback {
        url: "https://hooks.example/".parse().unwrap(),
        events: EventKind::TERMINAL.to_vec(),
        secret: None,
        headers: Vec::new(),
        retry: RetryOverride::default(),
        latest: None,
    };
    let job = NewJob {
        id,
        client: ClientId::dev(),
        input,
        variants: Variant::defaults(),
        preset: None,
        handling: Handling::default(),
        callback: Some(callback),
        priority: Priority::Normal,
        start_at: None,
        deadline_ms: None,
        tags: vec![format!("tag-{}", n % 7)],
        metadata: Some(format!(r#"{{"n":{n}}}"#)),
    };
    let idempotency = Idempotency { key: format!("key-{id}"), fingerprint: [7; 32] };
    Submission { job, idempotency: Some(idempotency) }
}

/// One of everything that changes the store: accept, claim, finish, deliver, delete, purge.
async fn one_round(store: &SledStore, worker: WorkerId, n: u64) {
    let lease = Duration::from_secs(3600);
    let now = Clock::system().now();
    for _ in 0..4 {
        store.submit(submission(n), now).await.unwrap();
    }
    for job in store.claim_jobs(worker, 6, lease, now).await.unwrap() {
        let token = job.lease_token;
        store.finish_job(job.id, token, Ending::Completed, now).await.unwrap();
        store.change_job(job.id, JobAction::Delete, None, now).await.unwrap();
    }
    for (delivery, _) in store.claim_deliveries(worker, 6, lease, now).await.unwrap() {
        let attempt = Attempt {
            number: delivery.attempt_count + 1,
            started_at: now,
            duration_ms: 1,
            trigger: darkroom::domain::delivery::Trigger::default(),
            timings: darkroom::domain::delivery::Timings::default(),
            remote_addr: None,
            response: None,
            error: None,
            next_attempt_at: None,
        };
        let token = delivery.lease.unwrap().token;
        store.settle_delivery(delivery.id, token, attempt, Verdict::Delivered, now).await.unwrap();
    }
    store.purge(6, now).await.unwrap();
}

async fn ids(store: &SledStore) -> HashSet<JobId> {
    let mut ids = HashSet::new();
    let mut query = JobQuery { limit: 200, include_deleted: true, ..JobQuery::default() };
    loop {
        let page = store.jobs(query.clone()).await.unwrap();
        ids.extend(page.jobs.iter().map(|job| job.id));
        query.before = page.next;
        if query.before.is_none() {
            return ids;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_under_load_is_of_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let submissions = (0..1200).map(|n| store.submit(submission(n), Clock::system().now()));
    futures_util::future::try_join_all(submissions).await.unwrap();
    let worker = WorkerId::new(Clock::system().now(), &entropy());
    for n in 0..20 {
        one_round(&store, worker, n).await;
    }
    let held = store.claim_jobs(worker, 5, Duration::from_secs(3600), Clock::system().now()).await.unwrap();
    assert_eq!(held.len(), 5);
    let paused = Paused { intake: true, work: false };
    store.set_paused(paused).await.unwrap();
    let acknowledged = ids(&store).await;

    let mut export = store.export().await.unwrap();
    let (rounds, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let load = tokio::spawn({
        let (store, rounds, stop) = (Arc::clone(&store), Arc::clone(&rounds), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::Relaxed) {
                let n = rounds.fetch_add(1, Ordering::AcqRel);
                one_round(&store, worker, n).await;
            }
        }
    });
    let mut chunks = Vec::new();
    while let Some(chunk) = bounded(export.next()).await.unwrap() {
        chunks.push(chunk);
        // Every slice meets another store.
        let until = rounds.load(Ordering::Acquire) + 3;
        eventually(async || (rounds.load(Ordering::Acquire) > until).then_some(())).await;
    }
    drop(export);
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();

    let jobs = chunks.iter().flatten().filter_map(|record| match record {
        Record::Job(job) => Some(job.id),
        _ => None,
    });
    assert_eq!(jobs.collect::<HashSet<_>>(), acknowledged);
    let purged = acknowledged.difference(&ids(&store).await).count();
    assert!(chunks.len() > 10 && purged > 50, "{} slices, {purged} purged meanwhile", chunks.len());

    let target = tempfile::tempdir().unwrap();
    let copy = open(target.path()).await;
    let mut import = copy.import().await.unwrap();
    for chunk in chunks {
        import.put(chunk).await.unwrap();
    }
    import.finish(Clock::system().now()).await.unwrap();
    let audit = copy.audit().await.unwrap();
    assert_eq!(audit.faults, Vec::<String>::new());
    assert_eq!(audit.jobs.values().sum::<u64>(), acknowledged.len() as u64);
    assert_eq!(audit.jobs.get(&JobStatus::Processing), None, "whoever held it is elsewhere");
    assert_eq!((copy.paused(), copy.waiting_jobs()), (paused, audit.jobs[&JobStatus::Queued]));
    assert!(matches!(copy.import().await.err(), Some(StoreError::NotEmpty)));
    copy.close().await;
    store.close().await;
}

/// An export of two jobs with small pictures.
async fn small_export(place: &Path) -> (TempDir, PathBuf) {
    let app = App::start().await;
    for n in 0..2 {
        let job = app.accepted(picture::jpeg(30 + n, 20), &[]).await;
        app.finished(text(&job, "/id")).await;
    }
    let source = app.stop().await;
    let file = place.join("backup.tar");
    succeeds(&["export", arg(&file), "--data-dir", arg(source.path())], "").await;
    (source, file)
}

fn position(haystack: &[u8], needle: &str) -> usize {
    haystack.windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_file_that_is_cut_off_or_altered_is_refused_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let (_source, file) = small_export(place.path()).await;
    let whole = fs::read(&file).unwrap();
    let altered = place.path().join("altered.tar");
    let end = position(&whole, "end.json") + 512 + 10;
    for length in (0..end).step_by(200).chain([end]) {
        fs::write(&altered, &whole[..length]).unwrap();
        assert!(check(&altered).await.is_err(), "cut off at {length}");
    }
    let thumbnail = position(&whole, "/thumbnail") & !511;
    for place in [
        // A header's checksum, the header, the secret, a record, a picture, the end.
        148,
        position(&whole, "{\"format\"") + 30,
        position(&whole, "whsec_") + 12,
        position(&whole, "\"revision\":") + 11,
        position(&whole, "\"sha256\":\"") + 12,
        thumbnail + 512 + 300,
        position(&whole, "\"missing\":") + 10,
    ] {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        fs::write(&altered, &bytes).unwrap();
        assert!(check(&altered).await.is_err(), "altered at {place}");
    }
    // A picture whose job is told to have it is left out.
    let size =
        usize::from_str_radix(std::str::from_utf8(&whole[thumbnail + 124..thumbnail + 135]).unwrap(), 8);
    let next = thumbnail + 512 + size.unwrap().next_multiple_of(512);
    fs::write(&altered, [&whole[..thumbnail], &whole[next..]].concat()).unwrap();
    assert!(check(&altered).await.is_err(), "without a picture");
    fs::write(&altered, [&whole[..end & !511], &whole[thumbnail..]].concat()).unwrap();
    assert!(check(&altered).await.is_err(), "with a picture behind the end");

    let target = place.path().join("restored");
    let into = ["--data-dir", arg(&target)];
    let import = |file: &Path| ["import", arg(file), into[0], into[1]].map(str::to_owned);
    for (content, says) in [
        // At the end of a block: what ends within a header is told as damaged.
        (&whole[..(whole.len() / 2) & !511], "cut off"),
        (&whole[..thumbnail], "cut off"),
        (b"no tar file", "no export"),
        (&[0; 2048], "no export"),
    ] {
        fs::write(&altered, content).unwrap();
        fails(&import(&altered).each_ref().map(String::as_str), 1, says).await;
        assert!(!target.exists());
    }
    let newer = String::from_utf8_lossy(&whole[..1024]).replace("{\"format\":5", "{\"format\":9");
    fs::write(&altered, newer).unwrap();
    fails(&import(&altered).each_ref().map(String::as_str), 1, "format version 9").await;
    fails(&import(&place.path().join("none.tar")).each_ref().map(String::as_str), 2, "none.tar").await;
    assert!(!target.exists());
    succeeds(&import(&file).each_ref().map(String::as_str), "").await;
}

#[tokio::test]
async fn a_folder_that_holds_something_is_left_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    let (source, file) = small_export(place.path()).await;
    fails(&["import", arg(&file), "--data-dir", arg(source.path())], 1, "is there already").await;
    fails(
        &["export", arg(&file.with_extension("2")), "--data-dir", arg(&place.path().join("no"))],
        1,
        "no store",
    )
    .await;
    assert!(!place.path().join("no").exists());
    for name in ["blobs/07/x", "signing-secret", "encryption-key"] {
        let target = tempfile::tempdir().unwrap();
        let path = target.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        fails(&["import", arg(&file), "--data-dir", arg(target.path())], 1, "is there already").await;
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn a_key_that_is_configured_is_not_in_the_file_and_asked_for() {
    let key = ("storage.encryption_key", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
    let app = App::with(&[key], Clock::system()).await;
    let secrets = app.get_json("/v1/secrets").await["items"].clone();
    let source = app.stop().await;
    let (place, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = place.path().join("backup.tar");
    // It opens no secret, so it needs no key.
    let exported = succeeds(&["export", arg(&file), "--data-dir", arg(source.path())], "").await;
    assert_eq!(exported["encryption_key"], false);
    let needed = exported["needed_keys"][0].as_str().unwrap();
    let output = run(&["import", arg(&file), "--data-dir", arg(target.path())], "").await;
    let said = stderr(&output);
    assert!(output.status.success() && said.contains(needed), "{said}");
    let into = ["--data-dir", arg(target.path())];
    fails(&["serve", "--dev", "--listen", "127.0.0.1:0", into[0], into[1]], 1, needed).await;
    let copy = App::on(target, &[key], Clock::system()).await;
    assert_eq!(copy.get_json("/v1/secrets").await["items"], secrets);
    copy.stop().await;
}

#[tokio::test]
async fn an_import_that_broke_off_is_recognised() {
    let place = tempfile::tempdir().unwrap();
    let (_source, file) = small_export(place.path()).await;
    let target = place.path().join("restored");
    fs::create_dir(&target).unwrap();
    // No picture can be received.
    fs::write(target.join("uploads"), "in the way").unwrap();
    let import = ["import", arg(&file), "--data-dir", arg(&target)];
    fails(&import, 1, "empty it and import again").await;
    fails(&import, 1, "was not finished").await;
    fails(&["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", arg(&target)], 1, "was not finished")
        .await;
    fails(&["export", arg(&file.with_extension("2")), "--data-dir", arg(&target)], 1, "was not finished")
        .await;
    fs::remove_dir_all(&target).unwrap();
    succeeds(&import, "").await;
}

#[tokio::test]
async fn pictures_that_are_missing_are_named_and_the_rest_is_saved() {
    let app = App::start().await;
    let job = app.accepted(picture::jpeg(300, 200), &[]).await;
    let id = text(&job, "/id").to_owned();
    app.finished(&id).await;
    let files = app.files();
    let of = |name: &str| PathBuf::from(files.iter().find(|file| file.ends_with(name)).unwrap());
    let (preview, thumbnail) = (of(".preview"), of(".thumbnail"));
    let source = app.stop().await;
    fs::remove_file(preview).unwrap();
    let mut bytes = fs::read(&thumbnail).unwrap();
    bytes[100] ^= 1;
    fs::write(&thumbnail, bytes).unwrap();

    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("backup.tar");
    let output = run(&["export", arg(&file), "--data-dir", arg(source.path())], "").await;
    assert_eq!(output.status.code(), Some(1));
    for name in ["preview", "thumbnail"] {
        assert!(stderr(&output).contains(&format!("missing: {id}/{name}: ")), "{}", stderr(&output));
    }
    let target = tempfile::tempdir().unwrap();
    let imported = succeeds(&["import", arg(&file), "--data-dir", arg(target.path())], "").await;
    assert_eq!((imported["pictures"].as_u64(), imported["missing"].as_u64()), (Some(2), Some(2)));
    let copy = App::on(target, &[], Clock::system()).await;
    let original = copy.get(&format!("/v1/jobs/{id}/artifacts/original")).await;
    assert_eq!(original.bytes().await.unwrap(), picture::jpeg(300, 200));
    copy.stop().await;
}
