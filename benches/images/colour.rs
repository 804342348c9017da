//! Colours and orientations: the preview without loss, beside what libvips makes of all pixels of the same file.

use serde_json::{Value, json};

use crate::Bench;
use crate::contender::{Contender, Process, job};
use crate::pictures::Picture;

/// Levels of 255 that our preview may differ, on average and for 99 of 100 samples: eight bits, the resampling of both, and
/// two implementations of the same profile.
const MEAN: f64 = 1.0;
const P99: f64 = 4.0;

const INTENTS: [&str; 2] = ["relative", "perceptual"];

pub(crate) fn compare(bench: &Bench) {
    if bench.colours.is_empty() && bench.orientations.is_empty() {
        return println!("\nNo colours: --colours DIR, --orientations DIR");
    }
    let Some(mut judge) = bench.judge() else { return println!("\nNo colours: there is no judge") };
    println!("\n## Colours and orientations\n");
    println!(
        "Difference from a full decode by libvips, its profile applied with the intent, scaled by Lanczos3 in floating \
         point: mean, 99th percentile and greatest, of 255. Tolerated of ours: a mean of {MEAN}, {P99} for 99 %.\n"
    );
    let names: Vec<_> = bench.contenders.iter().map(|one| one.name()).collect();
    println!("| picture | intent | {} | |\n|---|---|{}---|", names.join(" | "), "---|".repeat(names.len()));
    let mut processes: Vec<_> = bench.contenders.iter().map(|one| (*one, one.start().unwrap())).collect();
    for (pictures, intents) in [(&bench.colours, INTENTS.as_slice()), (&bench.orientations, &INTENTS[..1])] {
        for picture in pictures {
            let made: Vec<_> = processes.iter_mut().map(|process| preview(bench, process, picture)).collect();
            for intent in intents {
                let all = made.iter().map(|made| Difference::of(bench, &mut judge, picture, intent, made));
                let all: Vec<_> = all.collect();
                let cells: Vec<_> = all.iter().map(Difference::cell).collect();
                // Ours is the first.
                let mark = if all[0].mean > MEAN || all[0].p99 > P99 { "**beyond**" } else { "" };
                println!("| {} | {intent} | {} | {mark} |", picture.name, cells.join(" | "));
            }
        }
    }
}

fn preview(bench: &Bench, (contender, process): &mut (Contender, Process), picture: &Picture) -> Value {
    let place = bench.place(&format!("png-{}", contender.name()), picture);
    process.ask(&job("png", picture, &place))["files"]["preview"].clone()
}

struct Difference {
    mean: f64,
    p99: f64,
    most: f64,
}

impl Difference {
    fn of(bench: &Bench, judge: &mut Process, picture: &Picture, intent: &str, made: &Value) -> Self {
        let place = bench.place(&format!("reference-{intent}"), picture);
        let reference = place.join("preview.png");
        if !reference.exists() {
            let mut wanted = job("reference", picture, &place);
            wanted["intent"] = json!(intent);
            judge.ask(&wanted);
        }
        let answer = judge.ask(&json!({ "kind": "difference", "input": made, "reference": reference }));
        let [mean, p99, most] = ["mean", "p99", "max"].map(|what| answer[what].as_f64().unwrap());
        Self { mean, p99, most }
    }

    fn cell(&self) -> String {
        format!("{:.2}, {:.0}, {:.0}", self.mean, self.p99, self.most)
    }
}
