//! Watermarks: configured, named by variants, and on their artifacts.

use std::path::{Path, PathBuf};
use std::process::Command;

use darkroom::clock::Clock;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{App, bounded, picture, text};

/// A configuration with a red watermark, a tenth of the width, right in the corner at the bottom right.
fn configured(more: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mark = DynamicImage::from(RgbaImage::from_pixel(40, 40, Rgba([255, 0, 0, 255])));
    let (logo, file) = (folder.path().join("logo.png"), folder.path().join("darkroom.toml"));
    std::fs::write(&logo, picture::encode(&mark, ImageFormat::Png)).unwrap();
    let section = format!("[watermarks.logo]\nfile = '{}'\nwidth = 0.1\nmargin = 0\n", logo.display());
    std::fs::write(&file, format!("{section}{more}")).unwrap();
    (folder, file)
}

const VARIANTS: &str = r#"[
    {"name": "marked", "width": 100, "format": "png", "watermark": "logo"},
    {"name": "plain", "width": 100, "format": "png"},
    {"name": "full", "watermark": "logo"}
]"#;

async fn pixels(app: &App, job: &Value, name: &str) -> RgbImage {
    let response = app.http.get(text(job, &format!("/_links/{name}/href"))).send().await.unwrap();
    picture::decode(&response.bytes().await.unwrap()).to_rgb8()
}

#[tokio::test]
async fn a_variant_has_its_watermark_and_is_otherwise_the_same() {
    for isolation in ["process", "thread"] {
        let (_folder, file) = configured(&format!("[imaging]\nisolation = '{isolation}'\n"));
        let app = App::start_with_file(&file).await;
        let job = app.accepted(picture::jpeg(400, 300), &[("variants", VARIANTS)]).await;
        let job = app.finished(text(&job, "/id")).await;
        assert_eq!(job["status"], "completed", "{isolation}: {job}");
        let (marked, plain) = (pixels(&app, &job, "marked").await, pixels(&app, &job, "plain").await);
        for (x, y, Rgb([r, g, b])) in plain.enumerate_pixels() {
            let half = |of: u8, with: u8| u16::midpoint(u16::from(of) + 1, u16::from(with)) as u8;
            let is_below = x >= 90 && y >= 65;
            let expected = if is_below { [half(*r, 255), half(*g, 0), half(*b, 0)] } else { [*r, *g, *b] };
            assert_eq!(marked.get_pixel(x, y).0, expected, "{isolation}: {x}, {y}");
        }
        // The original at full size, and yet not as it came.
        let full = pixels(&app, &job, "full").await;
        assert_eq!(full.dimensions(), (400, 300));
        let reds = |x, y| i32::from(full.get_pixel(x, y)[0]) - i32::from(full.get_pixel(x, y)[1]);
        assert!(reds(380, 280) > reds(350, 250) + 80, "{isolation}: {}, {}", reds(380, 280), reds(350, 250));
        app.stop().await;
    }
}

#[tokio::test]
async fn an_unknown_name_is_refused_where_it_stands() {
    let (_folder, file) = configured("");
    let app = App::start_with_file(&file).await;
    let wrong = r#"[{"name": "a", "watermark": "logo"}, {"name": "b", "watermark": "lego"}]"#;
    let response = app.submit(picture::jpeg(40, 30), &[("variants", wrong)]).await;
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let problem: Value = response.json().await.unwrap();
    let fault = json!({"field": "variants[1].watermark", "code": "unknown", "detail": "known: logo"});
    assert_eq!(problem["errors"], json!([fault]));
    app.stop().await;
}

#[tokio::test]
async fn a_preset_can_have_one() {
    let preset =
        "[presets.p]\nvariants = [{ name = 'marked', width = 100, format = 'png', watermark = 'logo' }]";
    let (_folder, file) = configured(preset);
    let app = App::start_with_file(&file).await;
    let white = picture::encode(&RgbImage::from_pixel(100, 100, Rgb([255; 3])).into(), ImageFormat::Png);
    let job = app.accepted(white, &[("preset", "p")]).await;
    let job = app.finished(text(&job, "/id")).await;
    let marked = pixels(&app, &job, "marked").await;
    assert_eq!((marked.get_pixel(99, 99).0, marked.get_pixel(89, 89).0), ([255, 128, 128], [255; 3]));
    app.stop().await;
}

#[tokio::test]
async fn a_job_whose_watermark_is_gone_fails_and_is_not_left_unmarked() {
    let (_folder, file) = configured("");
    let app = App::start_with_file(&file).await;
    let post = async |app: &App, path: &str| app.http.post(app.url(path)).send().await.unwrap().status();
    assert_eq!(post(&app, "/v1/queue/pause?what=work").await, StatusCode::OK);
    let job = app.accepted(picture::jpeg(400, 300), &[("variants", VARIANTS)]).await;
    let folder = app.stop().await;
    let app = App::on(folder, &[], Clock::system()).await;
    assert_eq!(post(&app, "/v1/queue/resume").await, StatusCode::OK);
    let job = app.finished(text(&job, "/id")).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("watermark-unknown")));
    assert_eq!(job["error"]["detail"], "marked: there is no watermark logo any more");
    assert_eq!((&job["artifacts"], &job["attempt"]), (&json!([]), &json!(1)), "{job}");
    app.stop().await;
}

async fn started(folder: &Path, file: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--config"]).arg(file);
    command.arg("--data-dir").arg(folder.join("data"));
    let output = bounded(tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn without_a_usable_file_the_service_does_not_start() {
    let (folder, file) = configured("");
    std::fs::write(folder.path().join("logo.png"), "no picture").unwrap();
    let (code, told) = started(folder.path(), &file).await;
    assert!(code == Some(2) && told.contains("watermarks.logo: file ") && told.contains("no PNG"), "{told}");
    std::fs::remove_file(folder.path().join("logo.png")).unwrap();
    let (code, told) = started(folder.path(), &file).await;
    assert!(code == Some(2) && told.contains("logo.png: No such file"), "{told}");
    assert!(!folder.path().join("data").exists());
}
