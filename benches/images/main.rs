//! What pictures cost as users get them, beside sharp and libvips in the same run:
//! `cargo bench --bench images -- --photos DIR`. `benches/README.md` says how, and has a run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench reads the clock, prints its figures, and stops on the spot when something fails"
)]

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use self::contender::{Contender, Process};
use self::pictures::Picture;

mod bombs;
mod colour;
mod contender;
mod figures;
mod isolation;
mod latency;
mod memory;
mod pages;
mod pictures;
mod quality;
mod speed;
mod worker;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds of every comparison after one to warm up; what is compared takes turns in each.
const ROUNDS: usize = 5;

/// What the run works on.
struct Bench {
    contenders: Vec<Contender>,
    photos: Vec<Picture>,
    /// Of the orientations, and with other colours than sRGB.
    orientations: Vec<Picture>,
    colours: Vec<Picture>,
    rounds: usize,
    /// For what is made.
    folder: TempDir,
}

impl Bench {
    /// Makes references and judges what was made, where libvips is there.
    fn judge(&self) -> Option<Process> {
        self.contenders.contains(&Contender::Vips).then(|| Contender::Vips.start().unwrap())
    }

    /// A folder for what is made of the picture.
    fn place(&self, of: &str, picture: &Picture) -> PathBuf {
        let place = self.folder.path().join(of).join(&picture.name);
        std::fs::create_dir_all(&place).unwrap();
        place
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| Some(args.get(args.iter().position(|arg| arg == name)? + 1)?.as_str());
    if args.iter().any(|arg| arg == contender::WORKER) {
        return worker::run();
    }
    let pictures = |name: &str| value(name).map_or_else(Vec::new, |folder| pictures::of(Path::new(folder)));
    let base = std::env::var("BENCH_DIR").unwrap_or_else(|_| ".".to_owned());
    let bench = Bench {
        contenders: Vec::new(),
        photos: pictures("--photos"),
        orientations: pictures("--orientations"),
        colours: pictures("--colours"),
        rounds: value("--rounds").map_or(ROUNDS, |rounds| rounds.parse().unwrap()),
        folder: tempfile::tempdir_in(base).unwrap(),
    };
    if bench.photos.is_empty() {
        println!(
            "cargo bench --bench images -- --photos DIR: a folder with JPEG photos; benches/README.md has more"
        );
        return;
    }
    figures::print_machine();
    let bench = Bench { contenders: contender::present(), ..bench };
    let only = value("--only");
    let wants = |name: &str| only.is_none_or(|only| only.split(',').any(|part| part == name));
    for kind in ["variants", "full"] {
        if wants(kind) {
            speed::compare(&bench, kind);
        }
    }
    if wants("colour") {
        colour::compare(&bench);
    }
    if wants("memory") {
        memory::compare(&bench);
    }
    if let Some(folder) = value("--bombs").filter(|_| wants("bombs")) {
        bombs::measure(Path::new(folder));
    }
    if wants("latency") {
        latency::measure(&bench);
    }
    if wants("isolation") {
        isolation::compare(&bench);
    }
    if let Some(folder) = value("--pages").filter(|_| wants("pages")) {
        pages::write(&bench, Path::new(folder));
    }
}
