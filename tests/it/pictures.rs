//! A picture in, artifacts out.

use image::GenericImageView as _;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{App, picture, text};

async fn bytes_of(app: &App, job: &Value, name: &str) -> Vec<u8> {
    let href = text(job, &format!("/_links/{name}/href"));
    let response = app.http.get(href).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{href}");
    let linked_type = text(job, &format!("/_links/{name}/type")).to_owned();
    assert_eq!(response.headers()["content-type"], linked_type.as_str());
    response.bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn a_multipart_upload_becomes_three_artifacts_of_the_announced_sizes() {
    let app = App::start().await;
    let original = picture::jpeg(1000, 750);
    let job = app.accepted(original.clone(), &[("tags", "a,b"), ("metadata", r#"{"order": 7}"#)]).await;
    assert_eq!((text(&job, "/status"), text(&job, "/input/media_type")), ("queued", "image/jpeg"));

    let job = app.finished(text(&job, "/id")).await;
    assert_eq!(text(&job, "/status"), "completed", "{job}");
    assert_eq!((&job["tags"], &job["metadata"]), (&json!(["a", "b"]), &json!({"order": 7})));
    assert_eq!(job["progress"], json!({"percent": 100, "stage": null}));
    assert_eq!(bytes_of(&app, &job, "original").await, original);
    for (name, size) in [("optimized", (1000, 750)), ("preview", (800, 600)), ("thumbnail", (200, 150))] {
        let artifacts = job["artifacts"].as_array().unwrap();
        let announced = artifacts.iter().find(|artifact| artifact["name"] == name).unwrap();
        let bytes = bytes_of(&app, &job, name).await;
        assert_eq!(announced["bytes"], bytes.len());
        assert_eq!(
            (announced["width"].as_u64(), announced["height"].as_u64()),
            (Some(size.0.into()), Some(size.1.into()))
        );
        assert_eq!(picture::decode(&bytes).dimensions(), size, "{name}");
        assert!(bytes.len() <= original.len(), "{name} is larger than its input");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_raw_body_is_a_picture_too() {
    let app = App::start().await;
    let url = app.url("/v1/jobs?tags=raw");
    let request =
        app.http.post(url).header("content-type", "image/png").body(picture::png_with_alpha(90, 40));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let job: Value = response.json().await.unwrap();
    assert_eq!(text(&job, "/_links/self/href"), location);
    let job = app.finished(text(&job, "/id")).await;
    assert_eq!((text(&job, "/status"), &job["tags"]), ("completed", &json!(["raw"])), "{job}");
    // Never enlarged, and the alpha is kept.
    let thumbnail = picture::decode(&bytes_of(&app, &job, "thumbnail").await);
    assert_eq!(thumbnail.dimensions(), (90, 40));
    assert!(thumbnail.color().has_alpha());
    app.stop().await;
}

#[tokio::test]
async fn every_orientation_comes_out_the_right_way_up() {
    let app = App::start().await;
    // Upright, its left half is bright; each stored form is turned back by its orientation.
    let upright =
        image::RgbImage::from_fn(
            60,
            40,
            |x, _| if x < 30 { image::Rgb([230; 3]) } else { image::Rgb([20; 3]) },
        );
    let image = image::DynamicImage::from(upright);
    let stored = [
        image.clone(),
        image.fliph(),
        image.rotate180(),
        image.flipv(),
        image.rotate90().fliph(),
        image.rotate270(),
        image.rotate270().fliph(),
        image.rotate90(),
    ];
    for (orientation, stored) in (1_u8..).zip(stored) {
        let bytes = picture::jpeg_with_orientation(&stored.to_rgb8(), orientation);
        let job = app.accepted(bytes, &[]).await;
        assert_eq!(
            (&job["input"]["width"], &job["input"]["height"]),
            (&json!(60), &json!(40)),
            "{orientation}"
        );
        let job = app.finished(text(&job, "/id")).await;
        for name in ["optimized", "thumbnail"] {
            let made = picture::decode(&bytes_of(&app, &job, name).await).to_rgb8();
            assert_eq!(made.dimensions(), (60, 40), "orientation {orientation}, {name}");
            let (left, right) = (made.get_pixel(10, 20)[0], made.get_pixel(50, 20)[0]);
            assert!(left > 200 && right < 50, "orientation {orientation}, {name}: {left} and {right}");
        }
    }
    app.stop().await;
}
