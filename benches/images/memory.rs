//! What a large picture takes.

use std::path::PathBuf;

use image::{ImageReader, RgbImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::Bench;
use crate::contender::{Contender, Process, job};
use crate::figures::median;
use crate::pictures::Picture;

const WIDTH: u16 = 6000;
const HEIGHT: u16 = 4000;
/// Fresh processes a figure.
const TRIES: usize = 3;

pub(crate) fn compare(bench: &Bench) {
    let picture = Picture::open(&large(bench)).unwrap();
    println!("\n## Memory\n");
    println!(
        "Most resident of fresh processes, in MiB (VmHWM, the program itself included), median of {TRIES}: the first photo, \
         repeated to {WIDTH} × {HEIGHT}, baseline 4:2:0, quality 90, {:.1} MB.\n",
        picture.bytes as f64 / 1e6
    );
    let names: Vec<_> = bench.contenders.iter().map(|one| one.name()).collect();
    println!("| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    print(bench, "a process before any work", |one| one.start().unwrap().peak());
    for kind in ["variants", "full"] {
        print(bench, &format!("{kind}, one"), |one| peaks(bench, one, kind, &picture, 1));
        print(bench, &format!("{kind}, two at once"), |one| peaks(bench, one, kind, &picture, 2));
    }
}

fn print(bench: &Bench, what: &str, peak: impl Fn(Contender) -> f64) {
    let cell = |one: &Contender| format!("{:.0}", median((0..TRIES).map(|_| peak(*one)).collect()));
    let cells: Vec<_> = bench.contenders.iter().map(cell).collect();
    println!("| {what} | {} |", cells.join(" | "));
}

/// The sum of so many processes, each at the same picture.
fn peaks(bench: &Bench, contender: Contender, kind: &str, picture: &Picture, count: usize) -> f64 {
    let mut team: Vec<Process> = (0..count).map(|_| contender.start().unwrap()).collect();
    std::thread::scope(|scope| {
        for (number, process) in team.iter_mut().enumerate() {
            let output = bench.place(&format!("{}-{number}", contender.name()), picture);
            scope.spawn(move || process.ask(&job(kind, picture, &output)));
        }
    });
    team.iter().map(Process::peak).sum()
}

fn large(bench: &Bench) -> PathBuf {
    let photo = ImageReader::open(&bench.photos[0].path).unwrap().decode().unwrap().into_rgb8();
    let (width, height) = photo.dimensions();
    let pixels = RgbImage::from_fn(u32::from(WIDTH), u32::from(HEIGHT), |x, y| {
        *photo.get_pixel(x % width, y % height)
    });
    let path = bench.folder.path().join("large.jpg");
    let mut encoder = Encoder::new_file(&path, 90).unwrap();
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(&pixels, WIDTH, HEIGHT, ColorType::Rgb).unwrap();
    path
}
