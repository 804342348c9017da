//! Small pictures, made here.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

/// A picture with detail in it, so that encoders have something to do.
pub fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = ((x * x + 3 * y * y) / 97 % 256) as u8;
        Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, wave])
    })
}

/// What no codec makes smaller.
pub fn noise(width: u32, height: u32) -> RgbImage {
    let mut state = 1_u32;
    let bytes = std::iter::repeat_with(|| {
        // The generator of Numerical Recipes; its high bits are the good ones.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    RgbImage::from_raw(width, height, bytes.take(3 * width as usize * height as usize).collect()).unwrap()
}

pub fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub fn jpeg(width: u32, height: u32) -> Vec<u8> {
    encode(&scene(width, height).into(), ImageFormat::Jpeg)
}

pub fn png_with_alpha(width: u32, height: u32) -> Vec<u8> {
    let image = RgbaImage::from_fn(width, height, |x, y| Rgba([x as u8, y as u8, 90, (x + y) as u8]));
    encode(&image.into(), ImageFormat::Png)
}

/// A JPEG whose EXIF says how to turn it (orientation 1 to 8), after the start-of-image marker.
pub fn jpeg_with_orientation(image: &RgbImage, orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    with_segment(image, &exif)
}

/// The same with whose it is.
pub fn jpeg_with_exif(image: &RgbImage, orientation: u8, copyright: &str) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0]);
    // Tag, text, its length with the NUL, and its place, which is behind the directory.
    exif.extend(b"\x82\x98\0\x02\0\0\0");
    exif.extend([copyright.len() as u8 + 1, 0, 0, 0, 38, 0, 0, 0, 0]);
    exif.extend(copyright.bytes().chain([0]));
    with_segment(image, &exif)
}

fn with_segment(image: &RgbImage, exif: &[u8]) -> Vec<u8> {
    let plain = encode(&image.clone().into(), ImageFormat::Jpeg);
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    [&plain[..2], b"\xff\xe1", &length, exif, &plain[2..]].concat()
}

pub fn decode(bytes: &[u8]) -> DynamicImage {
    image::load_from_memory(bytes).unwrap()
}
