//! Small files that claim, or become, very much.

use std::path::Path;

use serde_json::json;

use crate::contender::Contender;

/// What saying no may take.
const MILLISECONDS: f64 = 50.0;
const MIB: f64 = 20.0;

pub(crate) fn measure(folder: &Path) {
    println!("\n## Bombs\n");
    println!(
        "Until it is refused, in a fresh process each, or else made; at most {MILLISECONDS} ms and {MIB} MiB.\n"
    );
    println!("| file | ms | MiB more | outcome | |\n|---|---|---|---|---|");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.is_file()) {
        let answer = Contender::Ours.start().unwrap().ask(&json!({ "kind": "refuse", "input": path }));
        let [ms, mib] = ["wall_ms", "mib"].map(|what| answer[what].as_f64().unwrap());
        let mark = if ms > MILLISECONDS || mib > MIB { "**too much**" } else { "" };
        let name = path.file_name().unwrap().to_string_lossy();
        println!("| {name} | {ms:.1} | {mib:.1} | {} | {mark} |", answer["outcome"].as_str().unwrap());
    }
}
