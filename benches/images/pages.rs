//! What all contenders made, side by side, to look at.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Bench;
use crate::contender::{Process, job};
use crate::pictures::Picture;

const HEAD: &str = "<!doctype html><meta charset=utf-8><title>Side by side</title>
<style>
body { font: 14px sans-serif; background: #777; color: #fff; margin: 16px }
.row { display: flex; gap: 8px; margin: 4px 0 16px; flex-wrap: wrap }
figure { margin: 0 } figcaption { font-size: 12px }
.crop { background: center no-repeat; width: 440px; height: 300px; image-rendering: pixelated }
.small .crop { width: 200px; height: 150px }
.small img { height: 130px }
</style>
";

/// Pictures below `folder`, and `index.html` with all of them.
pub(crate) fn write(bench: &Bench, folder: &Path) {
    let mut page = HEAD.to_owned();
    let mut processes: Vec<_> =
        bench.contenders.iter().map(|one| (one.name(), one.start().unwrap(), "variants")).collect();
    if let Some(judge) = bench.judge() {
        processes.insert(0, ("reference", judge, "reference"));
    }
    page.push_str("<h1>Photos</h1>\n");
    for photo in &bench.photos {
        let _ = writeln!(page, "<h2>{}</h2>", photo.name);
        let made = made(folder, &mut processes, photo);
        for (artifact, class) in [("preview", "row"), ("thumbnail", "row small")] {
            let _ = writeln!(page, "<div class='{class}'>");
            for (name, files) in &made {
                let (text, url) = shown(folder, name, &files[artifact]);
                let _ = writeln!(
                    page,
                    "<figure><div class=crop style=\"background-image: url('{url}')\"></div>\
                     <figcaption>{text}</figcaption></figure>"
                );
            }
            page.push_str("</div>\n");
        }
    }
    for (heading, pictures) in [("Orientations", &bench.orientations), ("Colours", &bench.colours)] {
        let _ = writeln!(page, "<h1>{heading}</h1>");
        // A row for each contender: what is wrong stands out from its neighbours.
        let mut rows = vec![String::new(); processes.len()];
        for picture in pictures {
            for (row, (name, files)) in rows.iter_mut().zip(made(folder, &mut processes, picture)) {
                let (_, url) = shown(folder, name, &files["thumbnail"]);
                let _ = writeln!(
                    row,
                    "<figure><img src=\"{url}\"><figcaption>{}</figcaption></figure>",
                    picture.name
                );
            }
        }
        for ((name, ..), row) in processes.iter().zip(rows) {
            let _ = writeln!(page, "<h3>{name}</h3><div class='row small'>{row}</div>");
        }
    }
    fs::write(folder.join("index.html"), page).unwrap();
    println!("\nSide by side: {}", folder.join("index.html").display());
}

fn made<'a>(
    folder: &Path,
    processes: &mut [(&'a str, Process, &'static str)],
    picture: &Picture,
) -> Vec<(&'a str, Value)> {
    let answers = processes.iter_mut().map(|(name, process, kind)| {
        let output = folder.join(*name).join(&picture.name);
        fs::create_dir_all(&output).unwrap();
        let output = output.canonicalize().unwrap();
        (*name, process.ask(&job(kind, picture, &output))["files"].clone())
    });
    answers.collect()
}

/// Its caption, and its address on the page.
fn shown(folder: &Path, name: &str, file: &Value) -> (String, String) {
    let path = Path::new(file.as_str().unwrap());
    let bytes = fs::metadata(path).unwrap().len();
    let url = path.strip_prefix(folder.canonicalize().unwrap()).unwrap().display().to_string();
    (format!("{name}, {:.1} KiB", bytes as f64 / 1024.0), url)
}
