//! What a job can make of its picture: variants, presets, and what is shown until they are there.

use image::GenericImageView as _;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{App, picture, text};

async fn bytes_of(app: &App, job: &Value, name: &str) -> Vec<u8> {
    let href = text(job, &format!("/_links/{name}/href"));
    app.http.get(href).send().await.unwrap().bytes().await.unwrap().to_vec()
}

/// The faults of a refused submission: field and code of each.
async fn refused(app: &App, fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let response = app.submit(picture::jpeg(40, 30), fields).await;
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "{fields:?}");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["code"], "validation");
    let faults = problem["errors"].as_array().unwrap();
    faults.iter().map(|fault| (text(fault, "/field").to_owned(), text(fault, "/code").to_owned())).collect()
}

fn faults(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(field, code)| ((*field).to_owned(), (*code).to_owned())).collect()
}

const VARIANTS: &str = r##"[
    {"name": "square", "width": 120, "height": 120, "fit": "cover", "focus": {"x": 0.2, "y": 0.5}},
    {"name": "box", "width": 100, "height": 100, "fit": "contain", "format": "png"},
    {"name": "low", "height": 90, "quality": 30, "format": "jpeg"},
    {"name": "full", "format": "png"}
]"##;

#[tokio::test]
async fn a_job_makes_the_variants_that_are_asked_for() {
    let app = App::start().await;
    let job = app.accepted(picture::jpeg(400, 300), &[("variants", VARIANTS)]).await;
    assert_eq!(job["placeholder"], Value::Null);
    let job = app.finished(text(&job, "/id")).await;
    assert_eq!(text(&job, "/status"), "completed", "{job}");
    for (name, size, media_type) in [
        ("square", (120, 120), "image/jpeg"),
        ("box", (100, 100), "image/png"),
        ("low", (120, 90), "image/jpeg"),
        ("full", (400, 300), "image/png"),
    ] {
        let announced = job["artifacts"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap();
        assert_eq!((&announced["width"], &announced["media_type"]), (&json!(size.0), &json!(media_type)));
        assert_eq!(picture::decode(&bytes_of(&app, &job, name).await).dimensions(), size, "{name}");
    }
    assert_eq!(job["artifacts"].as_array().unwrap().len(), 4);
    // It is in the event, too, which is what a callback carries.
    let events = app.get_json(&format!("/v1/jobs/{}/events", text(&job, "/id"))).await;
    let last = events["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["data"]["placeholder"], job["placeholder"]);
    let color = text(&job, "/placeholder/dominant_color");
    assert!(color.len() == 7 && color.starts_with('#'), "{color}");
    assert!(text(&job, "/placeholder/thumbhash").len() >= 24, "{job}");
    app.stop().await;
}

#[tokio::test]
async fn a_raw_body_has_its_variants_in_the_query() {
    let app = App::start().await;
    let mut url = reqwest::Url::parse(&app.url("/v1/jobs")).unwrap();
    url.query_pairs_mut().append_pair("variants", r#"[{"name": "tiny", "width": 20}]"#);
    let request = app.http.post(url).header("content-type", "image/jpeg").body(picture::jpeg(40, 30));
    let job: Value = request.send().await.unwrap().json().await.unwrap();
    let job = app.finished(text(&job, "/id")).await;
    assert_eq!(picture::decode(&bytes_of(&app, &job, "tiny").await).dimensions(), (20, 15));
    app.stop().await;
}

#[tokio::test]
async fn every_fault_of_variants_is_named() {
    let app = App::start().await;
    let wrong =
        r#"[{"name": "a", "widht": 5}, {"name": "a", "fit": "cover", "width": 9}, {"name": "original"}]"#;
    assert_eq!(
        refused(&app, &[("variants", wrong), ("metadata_policy", "some"), ("allow_truncated", "yes")]).await,
        faults(&[
            ("metadata_policy", "unknown"),
            ("allow_truncated", "not_a_boolean"),
            ("variants[0].widht", "unknown"),
            ("variants[1].height", "required"),
            ("variants[1].name", "repeated"),
            ("variants[2].name", "reserved"),
        ])
    );
    for (text, code) in [("[", "not_json"), ("{}", "not_variants"), ("[1]", "not_variants"), ("[]", "empty")]
    {
        assert_eq!(refused(&app, &[("variants", text)]).await, faults(&[("variants", code)]), "{text}");
    }
    let huge = r#"[{"name": "a"}, {"name": "b", "width": 9000, "enlarge": true}]"#;
    assert_eq!(refused(&app, &[("variants", huge)]).await, faults(&[("variants[1]", "too_large")]));
    assert_eq!(refused(&app, &[("preset", "avatar")]).await, faults(&[("preset", "unknown")]));
    assert_eq!(app.files(), [""; 0], "nothing is left of what was refused");
    app.stop().await;
}

#[tokio::test]
async fn variants_are_part_of_what_an_idempotency_key_stands_for() {
    let app = App::start().await;
    let send = async |variants: &str| {
        let form = crate::support::form(picture::jpeg(40, 30), &[("variants", variants)]);
        let request = app.http.post(app.url("/v1/jobs")).header("idempotency-key", "k").multipart(form);
        request.send().await.unwrap().status()
    };
    assert_eq!(send(r#"[{"name":"a","width":20}]"#).await, StatusCode::ACCEPTED);
    assert_eq!(send(r#"[ {"width": 20, "name": "a"} ]"#).await, StatusCode::ACCEPTED);
    assert_eq!(send(r#"[{"name":"a","width":21}]"#).await, StatusCode::UNPROCESSABLE_ENTITY);
    app.stop().await;
}

#[tokio::test]
async fn presets_stand_for_variants_and_can_be_all_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("darkroom.toml");
    let avatar =
        "[presets.avatar]\nvariants = [{ name = \"small\", width = 32, height = 32, fit = \"cover\" }]\n";
    std::fs::write(&file, format!("[imaging]\npresets_only = true\n{avatar}")).unwrap();
    let app = App::start_with_file(&file).await;
    let root = app.get_json("/").await;
    assert_eq!((&root["presets"], &root["presets_only"]), (&json!(["avatar"]), &json!(true)));
    let job = app.accepted(picture::jpeg(100, 60), &[("preset", "avatar")]).await;
    assert_eq!(job["preset"], "avatar");
    let job = app.finished(text(&job, "/id")).await;
    assert_eq!(picture::decode(&bytes_of(&app, &job, "small").await).dimensions(), (32, 32));
    let own = ("variants", r#"[{"name":"a"}]"#);
    assert_eq!(refused(&app, &[own]).await, faults(&[("variants", "presets_only")]));
    assert_eq!(refused(&app, &[own, ("preset", "avatar")]).await, faults(&[("variants", "not_with_preset")]));
    app.stop().await;
}

#[tokio::test]
async fn artifacts_keep_the_metadata_that_is_asked_for_and_are_turned_once() {
    let app = App::start().await;
    let upright = picture::scene(60, 40);
    let turned = image::DynamicImage::from(upright.clone()).rotate270().to_rgb8();
    let original = picture::jpeg_with_exif(&turned, 6, "(c) Somebody");
    let has_owner = |bytes: &[u8]| bytes.windows(12).any(|part| part == b"(c) Somebody");
    for (policy, kept) in [(None, false), (Some("copyright"), true), (Some("all"), true)] {
        let fields: Vec<_> = policy.map(|policy| ("metadata_policy", policy)).into_iter().collect();
        let job = app.accepted(original.clone(), &fields).await;
        let job = app.finished(text(&job, "/id")).await;
        for name in ["optimized", "preview"] {
            let bytes = bytes_of(&app, &job, name).await;
            assert_eq!(has_owner(&bytes), kept, "{policy:?}, {name}");
            // The decoder applies what EXIF says, so that a second turn would show.
            let mut decoder = image::ImageReader::new(std::io::Cursor::new(&bytes))
                .with_guessed_format()
                .unwrap()
                .into_decoder()
                .unwrap();
            let orientation = image::ImageDecoder::orientation(&mut decoder).unwrap();
            assert_eq!(orientation, image::metadata::Orientation::NoTransforms, "{policy:?}, {name}");
            assert_eq!(picture::decode(&bytes).dimensions(), (60, 40), "{policy:?}, {name}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn a_picture_that_is_cut_short_is_refused_unless_the_client_takes_it() {
    let app = App::start().await;
    for whole in [picture::jpeg(200, 150), picture::png_with_alpha(200, 150)] {
        let cut = whole[..whole.len() / 2].to_vec();
        let refused = app.submit(cut.clone(), &[]).await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], "image-undecodable");
        let job = app.accepted(cut, &[("allow_truncated", "true")]).await;
        let job = app.finished(text(&job, "/id")).await;
        assert_eq!(text(&job, "/status"), "completed", "{job}");
        for name in ["optimized", "preview", "thumbnail"] {
            assert_eq!(picture::decode(&bytes_of(&app, &job, name).await).dimensions(), (200, 150), "{name}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn avif_is_made_by_builds_that_have_it_and_refused_by_name_by_others() {
    let app = App::start().await;
    let variants = ("variants", r#"[{"name": "new", "width": 20, "format": "avif"}]"#);
    if cfg!(feature = "avif") {
        let job = app.accepted(picture::jpeg(40, 30), &[variants]).await;
        let job = app.finished(text(&job, "/id")).await;
        assert_eq!(text(&job, "/_links/new/type"), "image/avif", "{job}");
        assert_eq!(&bytes_of(&app, &job, "new").await[4..12], b"ftypavif");
    } else {
        assert_eq!(refused(&app, &[variants]).await, faults(&[("variants[0].format", "not_supported")]));
    }
    app.stop().await;
}
