//! Small pictures for the tests, made in code.

use std::io::Cursor;
use std::ops::ControlFlow;

use image::codecs::gif::GifEncoder;
use image::codecs::webp::WebPEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, Frame, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

use super::strip::crc32;
use super::{ImagingError, Probe, Rendered, Step, probe, render};
use crate::domain::image::{Handling, Limits, Variant, Watermarks};

pub(super) const LIMITS: Limits = Limits { max_pixels: 1_000_000, max_side: 2_000 };

/// Text that stands in all the metadata below.
pub(super) const SECRET: &[u8] = b"taken at home";

/// Smooth, and different in each corner.
pub(super) fn picture(width: u32, height: u32) -> RgbImage {
    let part = |at: u32, of: u32| u8::try_from(at * 255 / of).unwrap();
    RgbImage::from_fn(width, height, |x, y| {
        let right = if x > width / 2 { 200 } else { 30 };
        Rgb([part(x, width), part(y, height), right])
    })
}

/// What no encoder makes small.
pub(super) fn noise(width: u32, height: u32) -> RgbImage {
    let mut random = Random(7);
    RgbImage::from_fn(width, height, |_, _| Rgb([random.byte(), random.byte(), random.byte()]))
}

/// The picture with a hole in its upper left quarter.
pub(super) fn holed(width: u32, height: u32) -> RgbaImage {
    let opaque = picture(width, height);
    RgbaImage::from_fn(width, height, |x, y| {
        let Rgb([r, g, b]) = *opaque.get_pixel(x, y);
        Rgba([r, g, b, if x < width / 2 && y < height / 2 { 0 } else { 255 }])
    })
}

pub(super) fn jpeg(pixels: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let size = (u16::try_from(pixels.width()).unwrap(), u16::try_from(pixels.height()).unwrap());
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, quality);
    encoder.encode(pixels, size.0, size.1, jpeg_encoder::ColorType::Rgb).unwrap();
    bytes
}

/// The JPEG with further segments after its first marker.
pub(super) fn with_segments(mut jpeg: Vec<u8>, segments: &[(u8, &[u8])]) -> Vec<u8> {
    let mut inserted = Vec::new();
    for (marker, data) in segments {
        inserted.extend([0xFF, *marker]);
        inserted.extend(u16::try_from(data.len() + 2).unwrap().to_be_bytes());
        inserted.extend(*data);
    }
    jpeg.splice(2..2, inserted);
    jpeg
}

pub(super) fn png(pixels: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = Vec::new();
    pixels.into().write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
    bytes
}

/// The PNG with further chunks after its header.
pub(super) fn with_chunks(mut png: Vec<u8>, chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut inserted = Vec::new();
    for (kind, data) in chunks {
        let named = [kind.as_slice(), data].concat();
        inserted.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        inserted.extend(&named);
        inserted.extend(crc32(&named).to_be_bytes());
    }
    png.splice(33..33, inserted);
    png
}

pub(super) fn gif(frames: &[RgbaImage]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    encoder.set_repeat(image::codecs::gif::Repeat::Infinite).unwrap();
    encoder.encode_frames(frames.iter().cloned().map(Frame::new)).unwrap();
    drop(encoder);
    bytes
}

/// A simple lossless file: one chunk.
pub(super) fn webp(pixels: &RgbaImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = WebPEncoder::new_lossless(&mut bytes);
    encoder.encode(pixels, pixels.width(), pixels.height(), ExtendedColorType::Rgba8).unwrap();
    bytes
}

pub(super) type Chunk<'a> = (&'a [u8; 4], &'a [u8]);

/// An extended file of the given flags, canvas size and chunks.
pub(super) fn extended_webp(flags: u8, width: u32, height: u32, chunks: &[Chunk<'_>]) -> Vec<u8> {
    let [w0, w1, w2, _] = (width - 1).to_le_bytes();
    let [h0, h1, h2, _] = (height - 1).to_le_bytes();
    let canvas = [flags, 0, 0, 0, w0, w1, w2, h0, h1, h2];
    let mut body = b"WEBP".to_vec();
    let first: Chunk<'_> = (b"VP8X", &canvas);
    for chunk in std::iter::once(&first).chain(chunks) {
        body.extend(riff_chunk(*chunk));
    }
    riff_chunk((b"RIFF", &body))
}

pub(super) fn riff_chunk((kind, data): Chunk<'_>) -> Vec<u8> {
    let mut chunk = kind.to_vec();
    chunk.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    chunk.extend(data);
    chunk.extend(vec![0; data.len() % 2]);
    chunk
}

/// The data of the one chunk in a simple file.
pub(super) fn webp_bitstream(simple: &[u8]) -> &[u8] {
    let length = u32::from_le_bytes(*simple[16..].first_chunk().unwrap());
    &simple[20..][..usize::try_from(length).unwrap()]
}

/// Two frames, with EXIF, XMP and something unknown.
pub(super) fn animated_webp(pixels: &RgbaImage, exif: &[u8]) -> Vec<u8> {
    let simple = webp(pixels);
    let [w0, w1, w2, _] = (pixels.width() - 1).to_le_bytes();
    let [h0, h1, h2, _] = (pixels.height() - 1).to_le_bytes();
    let mut frame = vec![0, 0, 0, 0, 0, 0, w0, w1, w2, h0, h1, h2, 50, 0, 0, 0];
    frame.extend(riff_chunk((b"VP8L", webp_bitstream(&simple))));
    let chunks: [Chunk<'_>; 6] = [
        (b"ANIM", &[0; 6]),
        (b"ANMF", &frame),
        (b"ANMF", &frame),
        (b"EXIF", exif),
        (b"XMP ", SECRET),
        (b"abcd", SECRET),
    ];
    extended_webp(0x02 | 0x04 | 0x08 | 0x10, pixels.width(), pixels.height(), &chunks)
}

/// An EXIF block with a camera's name and an orientation, big-endian as cameras write it.
pub(super) fn exif(orientation: u8) -> Vec<u8> {
    let name_length = u8::try_from(SECRET.len()).unwrap();
    let mut block = b"MM\0*\0\0\0\x08\0\x02".to_vec();
    block.extend([0x01, 0x0F, 0, 2, 0, 0, 0, name_length, 0, 0, 0, 38]);
    block.extend([0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0]);
    block.extend([0; 4]);
    block.extend(SECRET);
    block
}

/// The block as it stands in a JPEG.
pub(super) fn jpeg_exif(orientation: u8) -> Vec<u8> {
    [b"Exif\0\0".as_slice(), &exif(orientation)].concat()
}

/// What has to be stored for `displayed` to be seen once `orientation` is applied.
pub(super) fn stored(displayed: &RgbImage, orientation: u8) -> RgbImage {
    let inverse = match Orientation::from_exif(orientation).unwrap() {
        Orientation::Rotate90 => Orientation::Rotate270,
        Orientation::Rotate270 => Orientation::Rotate90,
        own_inverse => own_inverse,
    };
    let mut pixels = DynamicImage::from(displayed.clone());
    pixels.apply_orientation(inverse);
    pixels.into_rgb8()
}

pub(super) fn probed(bytes: &[u8]) -> Result<Probe, ImagingError> {
    probe(&mut Cursor::new(bytes), &Handling::default(), &LIMITS)
}

/// All artifacts of the variants with these names and widths.
pub(super) fn rendered(
    bytes: &[u8],
    variants: &[(&str, Option<u32>)],
) -> Result<Vec<Rendered>, ImagingError> {
    let variant = |&(name, width): &(&str, _)| Variant { name: name.to_owned(), width, ..Variant::default() };
    let variants: Vec<_> = variants.iter().map(variant).collect();
    made(bytes, &variants, &Handling::default())
}

/// All artifacts of these variants.
pub(super) fn made(
    bytes: &[u8],
    variants: &[Variant],
    handling: &Handling,
) -> Result<Vec<Rendered>, ImagingError> {
    let mut artifacts = Vec::new();
    render(bytes, variants, &Watermarks::new(), handling, &LIMITS, &mut |step| {
        if let Step::Artifact(artifact) = step {
            artifacts.push(artifact);
        }
        ControlFlow::Continue(())
    })?;
    Ok(artifacts)
}

/// The artifact at full size.
pub(super) fn optimized(bytes: &[u8]) -> Rendered {
    rendered(bytes, &[("optimized", None)]).unwrap().remove(0)
}

pub(super) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The greatest and the mean difference of two pictures' samples.
pub(super) fn difference(a: &RgbImage, b: &RgbImage) -> (u8, f64) {
    assert_eq!(a.dimensions(), b.dimensions());
    let differences = a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b));
    let sum: u32 = differences.clone().map(u32::from).sum();
    (differences.max().unwrap(), f64::from(sum) / f64::from(a.width() * a.height() * 3))
}

/// Every proper beginning of the file is refused as cut short, or is too short to be recognized.
pub(super) fn assert_every_cut_is_found(bytes: &[u8]) {
    probed(bytes).unwrap();
    for length in 0..bytes.len() {
        match probed(&bytes[..length]) {
            Err(ImagingError::Truncated { .. }) => {}
            Err(ImagingError::Unsupported { detected: None }) => assert!(length < 12, "{length} bytes"),
            other => panic!("cut to {length} of {} bytes: {other:?}", bytes.len()),
        }
    }
}

/// Xorshift, so that a failure comes back with the same seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}
