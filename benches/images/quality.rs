//! How near what was made is to what it was made of.

use serde_json::json;

use crate::Bench;
use crate::contender::{Contender, Process, job};
use crate::figures::mean;
use crate::speed::Made;

/// Structural similarity, of luma. The small ones are compared with a full decode by libvips that was scaled in floating
/// point and never encoded, the original with the pixels of its source.
pub(crate) fn compare(bench: &Bench, made: &Made) {
    let Some(mut judge) = bench.judge() else { return };
    println!("\n| SSIM | {} | ours − sharp: mean | least |", names(bench));
    println!("|---|{}---|---|", "---|".repeat(bench.contenders.len()));
    for artifact in ["preview", "thumbnail", "original"] {
        let of: Vec<Vec<f64>> =
            bench.contenders.iter().map(|one| of_all(bench, &mut judge, made, *one, artifact)).collect();
        if of[0].is_empty() {
            continue;
        }
        let means = of.iter().map(|all| format!("{:.4}", mean(all.iter().copied())));
        let mut cells: Vec<_> = means.collect();
        if let Some(sharp) = bench.contenders.iter().position(|one| *one == Contender::Sharp) {
            let differences: Vec<f64> =
                of[0].iter().zip(&of[sharp]).map(|(ours, sharp)| ours - sharp).collect();
            cells.push(format!("{:+.4}", mean(differences.iter().copied())));
            cells.push(format!("{:+.4}", differences.iter().copied().fold(f64::MAX, f64::min)));
        } else {
            cells.extend([String::new(), String::new()]);
        }
        println!("| {artifact} | {} |", cells.join(" | "));
    }
}

fn names(bench: &Bench) -> String {
    bench.contenders.iter().map(|one| one.name()).collect::<Vec<_>>().join(" | ")
}

fn of_all(bench: &Bench, judge: &mut Process, made: &Made, contender: Contender, artifact: &str) -> Vec<f64> {
    let mut similarities = Vec::new();
    for (number, photo) in bench.photos.iter().enumerate() {
        let Some(file) = made[&(contender.name(), number)][artifact].as_str() else { continue };
        let reference = if artifact == "original" {
            json!(photo.path)
        } else {
            let place = bench.place("reference", photo);
            // The same for all of them.
            if !place.join("preview.png").exists() {
                judge.ask(&job("reference", photo, &place));
            }
            json!(place.join(format!("{artifact}.png")))
        };
        let answer = judge.ask(&json!({ "kind": "ssim", "input": file, "reference": reference }));
        similarities.push(answer["ssim"].as_f64().unwrap());
    }
    similarities
}
