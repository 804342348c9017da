//! Pictures in processes of their own: what keeps these in, and what happens when one of them dies.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use darkroom::clock::Clock;
use darkroom::domain::image::{Limits, Placement, Position, UNITS, Variant, Watermark, Watermarks};
use image::{DynamicImage, ImageFormat};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::process::Server;
use crate::support::{App, bounded, eventually, imaging, picture, text};

/// A picture that takes a while: at this size trellis-encoding it is seconds.
fn large() -> Vec<u8> {
    picture::jpeg(5000, 3000)
}

/// The imaging processes of a service that runs in the process `parent`.
fn imaging_processes(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        // It may end while it is looked at.
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let is_child = status(&read("status"), "PPid").is_some_and(|ppid| ppid == parent.to_string());
        if is_child && read("cmdline").contains("imaging-worker") {
            found.push(pid);
        }
    }
    found
}

fn status<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

fn proc(pid: u32, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

/// Whether it is gone, or only waits for somebody to ask how it ended.
fn is_dead(pid: u32) -> bool {
    let status_of = std::fs::read_to_string(proc(pid, "status")).unwrap_or_default();
    status(&status_of, "State").is_none_or(|state| state.starts_with('Z'))
}

/// Whether it has taken a picture up: then it has more memory than at its start.
fn works(pid: u32) -> bool {
    let status_of = std::fs::read_to_string(proc(pid, "status")).unwrap_or_default();
    let kib = status(&status_of, "VmRSS").and_then(|rss| rss.split(' ').next()?.parse::<u64>().ok());
    kib.is_some_and(|kib| kib > 80 * 1024)
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// The server in a process of its own, so that its imaging processes are nobody else's.
fn serve(folder: &Path, settings: &[(&str, &str)]) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    command
        .env("DARKROOM_IMAGING__THREADS", "1")
        .env("DARKROOM_QUEUE__RETRY_DELAY_MS", "10")
        .envs(settings.iter().copied())
        .stderr(Stdio::null());
    Server::from(command, folder)
}

struct Client<'a>(&'a Server);

impl Client<'_> {
    async fn submit(&self, picture: Vec<u8>) -> String {
        let request = reqwest::Client::new().post(format!("{}/v1/jobs", self.0.url));
        let response = request.header("content-type", "image/jpeg").body(picture).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        text(&response.json::<Value>().await.unwrap(), "/id").to_owned()
    }

    async fn get(&self, path: &str) -> Value {
        reqwest::get(format!("{}{path}", self.0.url)).await.unwrap().json().await.unwrap()
    }

    async fn ended(&self, id: &str) -> Value {
        eventually(async || {
            let job = self.get(&format!("/v1/jobs/{id}")).await;
            (!job["finished_at"].is_null()).then_some(job)
        })
        .await
    }

    async fn metric(&self, name: &str) -> f64 {
        let metrics = reqwest::get(format!("{}/metrics", self.0.url)).await.unwrap().text().await.unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

async fn at_work(server: &Server) -> u32 {
    eventually(async || imaging_processes(server.id()).into_iter().find(|pid| works(*pid))).await
}

#[tokio::test]
async fn a_process_has_no_files_no_network_and_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let secret = ("DARKROOM_CALLBACKS__SIGNING_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let server = serve(folder.path(), &[secret]);
    let client = Client(&server);
    // Whatever it does when it works, it has done.
    let id = client.submit(picture::jpeg(900, 600)).await;
    assert_eq!(client.ended(&id).await["status"], "completed");
    let [pid] = imaging_processes(server.id())[..] else { panic!("one for each thread") };

    let status_of = std::fs::read_to_string(proc(pid, "status")).unwrap();
    // 2 is a filter (prctl(2)); without it, Landlock or a namespace would have to be looked for.
    for (key, value) in [("Seccomp", "2"), ("NoNewPrivs", "1"), ("Threads", "1")] {
        assert_eq!(status(&status_of, key), Some(value), "{key}");
    }
    let limits = std::fs::read_to_string(proc(pid, "limits")).unwrap();
    let hard = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(["Max open files", "Max file size", "Max core file size"].map(hard), [3, 0, 0]);
    assert_eq!(hard("Max data size"), (1536 + 64) << 20);
    assert_eq!(hard("Max cpu time"), 256 * 121);
    let files = std::fs::read_dir(proc(pid, "fd")).unwrap();
    let files: Vec<_> = files.map(|file| std::fs::read_link(file.unwrap().path()).unwrap()).collect();
    // What whoever started the server left open for all is there too, and cannot be used.
    let harmless = |file: &Path| file.starts_with("/dev") || file.to_string_lossy().starts_with("pipe:");
    assert!(files.len() >= 3 && files.iter().all(|file| harmless(file)), "{files:?}");
    let environment = String::from_utf8(std::fs::read(proc(pid, "environ")).unwrap()).unwrap();
    let names: Vec<_> = environment.split_terminator('\0').filter_map(|one| one.split('=').next()).collect();
    assert_eq!(names, ["MIMALLOC_ARENA_EAGER_COMMIT", "MIMALLOC_PURGE_DECOMMITS", "MIMALLOC_PURGE_DELAY"]);

    let imaging = client.get("/v1/queue").await["imaging"].take();
    assert_eq!((&imaging["isolation"], &imaging["missing"]), (&json!("process"), &json!([])), "{imaging}");
    assert_eq!(client.metric("darkroom_imaging_processes").await, 1.0);
    assert_eq!(client.metric("darkroom_imaging_memory_budget_bytes").await, f64::from(1536 << 20));
}

#[tokio::test]
async fn a_job_whose_process_is_killed_is_tried_again_and_completes() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), &[]);
    let client = Client(&server);
    let id = client.submit(large()).await;
    let first = at_work(&server).await;
    kill(first);
    let job = client.ended(&id).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(2)), "{job}");
    assert_ne!(imaging_processes(server.id()), [first]);
    assert_eq!(client.metric("darkroom_imaging_restarts_total{reason=\"died\"}").await, 1.0);
    assert_eq!(client.metric("darkroom_imaging_memory_used_bytes").await, 0.0);
}

#[tokio::test]
async fn a_picture_that_kills_each_process_fails_and_costs_no_other_job() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), &[]);
    let client = Client(&server);
    let id = client.submit(large()).await;
    let other = client.submit(picture::jpeg(300, 200)).await;
    let mut killed = Vec::new();
    while killed.len() < 3 {
        let pid = at_work(&server).await;
        kill(pid);
        eventually(async || is_dead(pid).then_some(())).await;
        killed.push(pid);
    }
    let job = client.ended(&id).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("failed"), &json!(3)), "{job}");
    assert_eq!(text(&job, "/error/code"), "imaging-died");
    let detail = text(&job, "/error/detail");
    assert_eq!(detail, "the process that worked on the picture died: signal 9");
    // What was made before the process died is kept.
    let made = job["artifacts"].as_array().unwrap().iter().filter(|artifact| artifact["name"] == "thumbnail");
    assert!(made.count() <= 1, "{job}");
    assert_eq!(client.ended(&other).await["status"], "completed");
}

#[tokio::test]
async fn calling_a_job_off_kills_its_process_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), &[]);
    let client = Client(&server);
    let id = client.submit(large()).await;
    let pid = at_work(&server).await;
    let cancel = format!("{}/v1/jobs/{id}/cancel", server.url);
    let answer = reqwest::Client::new().post(cancel).send().await.unwrap();
    assert!(answer.status().is_success());
    assert_eq!(client.ended(&id).await["status"], "cancelled");
    eventually(async || is_dead(pid).then_some(())).await;
    // Had it worked on to the next step, it would have ended by itself, and lived.
    eventually(async || {
        (client.metric("darkroom_imaging_restarts_total{reason=\"killed\"}").await == 1.0).then_some(())
    })
    .await;
    let next = client.submit(picture::jpeg(300, 200)).await;
    assert_eq!(client.ended(&next).await["status"], "completed");
}

#[tokio::test]
async fn a_deadline_kills_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), &[("DARKROOM_IMAGING__MAX_TIME_MS", "300")]);
    let client = Client(&server);
    let [pid] = imaging_processes(server.id())[..] else { panic!("one for each thread") };
    let job = client.ended(&client.submit(large()).await).await;
    assert_eq!(text(&job, "/error/code"), "processing-timeout");
    eventually(async || is_dead(pid).then_some(())).await;
}

#[tokio::test]
async fn a_server_that_is_killed_leaves_no_process_behind() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), &[("DARKROOM_IMAGING__THREADS", "2")]);
    let client = Client(&server);
    client.submit(large()).await;
    at_work(&server).await;
    let processes = imaging_processes(server.id());
    assert_eq!(processes.len(), 2);
    server.kill();
    for pid in processes {
        eventually(async || is_dead(pid).then_some(())).await;
    }
}

#[tokio::test]
async fn on_threads_a_job_that_is_called_off_stops_at_its_next_step() {
    let flags = [("imaging.isolation", "thread"), ("imaging.threads", "1")];
    let app = App::with(&flags, Clock::system()).await;
    let job = app.accepted(large(), &[]).await;
    let id = text(&job, "/id");
    app.job_when(id, |job| job["status"] == "processing").await;
    let cancel = app.http.post(app.url(&format!("/v1/jobs/{id}/cancel"))).send().await.unwrap();
    assert!(cancel.status().is_success());
    assert_eq!(app.finished(id).await["status"], "cancelled");
    // The one thread is free again for the next.
    let next = app.accepted(picture::jpeg(300, 200), &[]).await;
    assert_eq!(app.finished(text(&next, "/id")).await["status"], "completed");
    bounded(app.stop()).await;
}

/// The most memory that the process has had, in bytes.
fn peak(pid: u32) -> u64 {
    let status_of = std::fs::read_to_string(proc(pid, "status")).unwrap();
    let kib = status(&status_of, "VmHWM").and_then(|memory| memory.split(' ').next()?.parse::<u64>().ok());
    kib.unwrap() * 1024
}

fn kinds() -> Vec<(&'static str, Vec<u8>)> {
    // Noise: whatever is kept of what has been coded, there is most of it.
    let rgb = DynamicImage::from(picture::noise(800, 600));
    let rgba = DynamicImage::from(image::RgbaImage::from_fn(800, 600, |x, y| {
        let image::Rgb([r, g, b]) = *rgb.as_rgb8().unwrap().get_pixel(x, y);
        image::Rgba([r, g, b, r])
    }));
    let jpeg = |colour, samples: &[u8], progressive| {
        let mut bytes = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
        encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_1_1);
        encoder.set_progressive(progressive);
        encoder.encode(samples, 800, 600, colour).unwrap();
        bytes
    };
    use jpeg_encoder::ColorType::{Cmyk, Luma, Rgb};
    let (three, four, one) = (rgb.to_rgb8(), rgba.to_rgba8(), rgb.to_luma8());
    #[cfg_attr(not(feature = "webp"), expect(unused_mut, reason = "one more with it"))]
    let mut kinds = vec![
        ("JPEG", jpeg(Rgb, &three, false)),
        ("progressive JPEG", jpeg(Rgb, &three, true)),
        ("grey JPEG", jpeg(Luma, &one, false)),
        ("progressive grey JPEG", jpeg(Luma, &one, true)),
        ("CMYK JPEG", jpeg(Cmyk, &four, false)),
        ("progressive CMYK JPEG", jpeg(Cmyk, &four, true)),
        ("turned JPEG", picture::jpeg_with_orientation(rgb.as_rgb8().unwrap(), 6)),
        ("PNG", picture::encode(&rgb, ImageFormat::Png)),
        ("PNG with alpha", picture::encode(&rgba, ImageFormat::Png)),
        ("grey PNG", picture::encode(&one.clone().into(), ImageFormat::Png)),
        ("PNG of 16 bits", picture::encode(&rgb.to_rgb16().into(), ImageFormat::Png)),
        ("PNG of 16 bits with alpha", picture::encode(&rgba.to_rgba16().into(), ImageFormat::Png)),
        ("lossless WebP", picture::encode(&rgba, ImageFormat::WebP)),
        ("GIF", picture::encode(&rgba, ImageFormat::Gif)),
    ];
    #[cfg(feature = "webp")]
    kinds.push(("WebP", webp::Encoder::from_rgb(&three, 800, 600).encode(90.0).to_vec()));
    kinds
}

/// The imaging process of the pool with this budget, which tells it from those of other tests.
fn process_of(mib: u32) -> Option<u32> {
    let memory = format!("--memory={}", (u64::from(mib) + 64) << 20);
    let is_ours =
        |pid: &u32| std::fs::read_to_string(proc(*pid, "cmdline")).is_ok_and(|line| line.contains(&memory));
    imaging_processes(std::process::id()).into_iter().find(is_ours)
}

/// 16 million pixels in a few kilobytes: nothing but them counts. What lies between two passes of a reduction, and what
/// is premultiplied, would not fit into what decoding took.
#[tokio::test]
async fn reducing_a_large_picture_takes_no_more_than_is_reserved_and_is_given_back() {
    let clear = image::RgbaImage::from_pixel(4000, 4000, image::Rgba([90, 90, 90, 128]));
    let bytes = picture::encode(&DynamicImage::from(clear), ImageFormat::Png);
    let limits = Limits { max_pixels: 16_000_000, max_side: 4000 };
    for (mib, width) in [(2001, 1333), (2003, 660)] {
        let pool = imaging::pool(mib).await;
        let pid = process_of(mib).unwrap();
        let before = peak(pid);
        let small = Variant { name: "small".to_owned(), width: Some(width), ..Variant::default() };
        let made =
            imaging::make(&pool, bytes.clone(), vec![small], Watermarks::default(), limits).await.unwrap();
        let used = peak(pid) - before;
        println!("{width:4} wide: used {} MiB, reserved {} MiB", used >> 20, made.reserved >> 20);
        // What any picture takes besides its pixels is reserved, too.
        let fixed = 16 << 20;
        assert!(used <= made.reserved - fixed, "{used} of {}", made.reserved);
        // The system could take it at any time; so that it need not be asked, a process at rest ends.
        eventually(async || is_dead(pid).then_some(())).await;
    }
}

/// The largest watermark there can be, over all of the artifact.
fn watermarks() -> Watermarks {
    let placement = Placement { position: Position::Centre, width: UNITS, margin: 0, opacity: 5_000 };
    let pixels = [200, 100, 0, 128].repeat(1_000_000);
    [("mark".to_owned(), Watermark { size: (1250, 800), pixels, placement }.into())].into()
}

/// Larger than the picture, so that the watermark is what takes most.
fn marked() -> Vec<Variant> {
    let (name, watermark) = ("marked".to_owned(), Some("mark".to_owned()));
    vec![Variant { name, width: Some(1200), watermark, enlarge: true, ..Variant::default() }]
}

/// What is reserved bounds what is used, for each kind of picture; printed, it is the table to look at.
#[tokio::test]
async fn no_picture_takes_more_memory_than_its_header_tells() {
    let limits = Limits { max_pixels: 4_000_000, max_side: 4000 };
    let mut exceeded = Vec::new();
    for (index, (kind, bytes)) in kinds().into_iter().enumerate() {
        let (small, all) = (Variant::defaults().split_off(2), Variant::defaults());
        for (nth, (name, variants)) in (0..).zip([("small", small), ("all", all), ("marked", marked())]) {
            // A budget of its own tells its process from those of other tests.
            let mib = 3000 + 3 * u32::try_from(index).unwrap() + nth;
            let pool = imaging::pool(mib).await;
            let pid = process_of(mib).unwrap();
            let before = peak(pid);
            let made = imaging::make(&pool, bytes.clone(), variants, watermarks(), limits).await.unwrap();
            let used = peak(pid) - before;
            let per_pixel = |bytes: u64| bytes as f64 / f64::from(800 * 600);
            println!(
                "{kind:26} {name:6} used {:5.1} reserved {:5.1} bytes a pixel",
                per_pixel(used),
                per_pixel(made.reserved)
            );
            assert!(!made.artifacts.is_empty());
            if used > made.reserved {
                exceeded.push((kind, name));
            }
        }
    }
    assert!(exceeded.is_empty(), "{exceeded:?}");
}
