//! Damaged pictures through all of imaging: none may panic, kill its process by needing more memory than its header
//! told, or take longer than any picture may.
//!
//! A few seconds long; `DARKROOM_TEST_FUZZ_SECONDS` makes it longer, `DARKROOM_TEST_FUZZ_CORPUS` adds the pictures of a
//! folder and of those in it, `DARKROOM_TEST_FUZZ_SEED` makes others of them. What is found is kept.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use darkroom::clock::Stopwatch;
use darkroom::domain::image::{Limits, Variant, Watermarks};
use darkroom::imaging::ImagingError;
use image::{DynamicImage, ImageFormat};

use crate::support::imaging::{make, pool};
use crate::support::picture::{encode, jpeg_with_orientation, png_with_alpha, scene};

/// Small enough for many inputs a second, and far more than a mutant needs to go wrong.
const LIMITS: Limits = Limits { max_pixels: 4_000_000, max_side: 16_384 };
/// The longest time for one input.
const MOST_TIME: Duration = Duration::from_secs(60);
/// Larger files of a corpus are left out: they cost time, and find nothing that a small one does not.
const MOST_BYTES: u64 = 300_000;

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next()).unwrap() % most.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let small: DynamicImage = scene(48, 32).into();
    let mut seeds = vec![
        encode(&small, ImageFormat::Jpeg),
        encode(&small.to_luma8().into(), ImageFormat::Jpeg),
        jpeg_with_orientation(&scene(48, 32), 6),
        encode(&small, ImageFormat::Png),
        encode(&small.to_rgba16().into(), ImageFormat::Png),
        encode(&small.to_luma16().into(), ImageFormat::Png),
        png_with_alpha(40, 30),
        encode(&small, ImageFormat::WebP),
        encode(&small.to_rgba8().into(), ImageFormat::Gif),
    ];
    #[cfg(feature = "webp")]
    seeds.push(webp::Encoder::from_rgb(&scene(48, 32), 48, 32).encode(70.0).to_vec());
    for (kind, samples) in [
        (jpeg_encoder::ColorType::Rgb, small.to_rgb8().into_raw()),
        (jpeg_encoder::ColorType::Cmyk, small.to_rgba8().into_raw()),
    ] {
        let mut progressive = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut progressive, 70);
        encoder.set_progressive(true);
        encoder.encode(&samples, 48, 32, kind).unwrap();
        seeds.push(progressive);
    }
    if let Some(folder) = env::var_os("DARKROOM_TEST_FUZZ_CORPUS") {
        let own = seeds.len();
        collect(Path::new(&folder), &mut seeds);
        assert!(seeds.len() > own, "no pictures in {}", folder.display());
    }
    seeds
}

fn collect(folder: &Path, seeds: &mut Vec<Vec<u8>>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, seeds);
        } else if fs::metadata(&path).unwrap().len() <= MOST_BYTES {
            seeds.push(fs::read(&path).unwrap());
        }
    }
}

fn mutant(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(8) {
        // Half of them in the head, where a byte means most.
        let within = if random.below(2) == 0 { bytes.len().min(600) } else { bytes.len() };
        let at = random.below(within);
        let end = (at + 1 + random.below(64)).min(bytes.len());
        match random.below(7) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.byte()),
            2 => {
                let extreme = [0, 0x01, 0x7f, 0x80, 0xff][random.below(5)];
                bytes.iter_mut().skip(at).take(1 + random.below(4)).for_each(|byte| *byte = extreme);
            }
            3 => drop(bytes.drain(at..end.max(at))),
            4 => {
                let copy = bytes.get(at..end).unwrap_or_default().to_vec();
                bytes.splice(at..at, copy);
            }
            5 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let part = &other[from..(from + random.below(200)).min(other.len())];
                bytes.splice(at..at, part.iter().copied());
            }
            _ => bytes.truncate(at.max(16)),
        }
    }
    if random.below(2) == 0 {
        repair(&mut bytes);
    }
    bytes
}

/// Makes what a decoder checks first right again, so that it gets to the rest: the checksums of a PNG, the size of a
/// WebP, the end of a JPEG.
fn repair(bytes: &mut Vec<u8>) {
    if bytes.starts_with(b"\x89PNG") {
        let mut at = 8;
        while let Some(length) =
            bytes.get(at..at + 4).map(|length| u32::from_be_bytes(length.try_into().unwrap()))
        {
            let end = at + 8 + length as usize;
            let Some(chunk) = bytes.get(at + 4..end) else { break };
            let mut crc = flate2::Crc::new();
            crc.update(chunk);
            let Some(place) = bytes.get_mut(end..end + 4) else { break };
            place.copy_from_slice(&crc.sum().to_be_bytes());
            at = end + 4;
        }
    } else if bytes.starts_with(b"RIFF") && bytes.len() > 8 {
        let size = u32::try_from(bytes.len() - 8).unwrap();
        bytes[4..8].copy_from_slice(&size.to_le_bytes());
    } else if bytes.starts_with(b"\xff\xd8") {
        bytes.extend(b"\xff\xd9");
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[tokio::test]
async fn damaged_pictures_are_made_or_refused_within_their_bounds() {
    let length = Duration::from_secs(number("DARKROOM_TEST_FUZZ_SECONDS", 5));
    let mut random = Random(number("DARKROOM_TEST_FUZZ_SEED", 1) | 1 << 40);
    let seeds = seeds();
    let pool = pool(1024).await;
    let clock = Stopwatch::start();
    let (mut inputs, mut made, mut findings) = (0_u64, 0_u64, Vec::new());
    while clock.elapsed() < length || inputs < 100 {
        let input = mutant(&seeds, &mut random);
        inputs += 1;
        let variants =
            if random.below(4) == 0 { Variant::defaults() } else { Variant::defaults().split_off(1) };
        let one = Stopwatch::start();
        let outcome = make(&pool, input.clone(), variants, Watermarks::new(), LIMITS).await;
        let found = match outcome {
            Ok(_) if one.elapsed() > MOST_TIME => format!("took {:?}", one.elapsed()),
            Ok(_) => {
                made += 1;
                continue;
            }
            Err(error @ (ImagingError::Panicked | ImagingError::Died { .. })) => error.to_string(),
            Err(_) => continue,
        };
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{inputs}"));
        fs::write(&file, input).unwrap();
        println!("{}: {found}", file.display());
        findings.push(file);
    }
    println!("{inputs} inputs, of {} pictures; {made} were still made", seeds.len());
    assert!(made > 0, "nothing got through: the mutator damages too much");
    assert!(findings.is_empty(), "{findings:?}");
}
