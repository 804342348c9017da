//! The built-in picture of `darkroom demo`, painted when it is needed: hills under an evening sky.

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageResult, Rgb, Rgb32FImage};

const WIDTH: u32 = 1600;
const HEIGHT: u32 = 1200;
const QUALITY: u8 = 90;

const ZENITH: Rgb<f32> = Rgb([0.13, 0.18, 0.42]);
const HORIZON: Rgb<f32> = Rgb([0.98, 0.62, 0.38]);
const SUN: Rgb<f32> = Rgb([1.0, 0.93, 0.75]);
const FAR_HILLS: Rgb<f32> = Rgb([0.36, 0.27, 0.45]);
const NEAR_HILLS: Rgb<f32> = Rgb([0.10, 0.12, 0.20]);

/// The picture as a JPEG.
pub(super) fn jpeg() -> ImageResult<Vec<u8>> {
    let scene =
        Rgb32FImage::from_fn(WIDTH, HEIGHT, |x, y| colour(x as f32 / WIDTH as f32, y as f32 / HEIGHT as f32));
    let mut bytes = Vec::new();
    DynamicImage::from(scene)
        .to_rgb8()
        .write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY))?;
    Ok(bytes)
}

/// The colour at a point, both coordinates from 0 to 1 and `y` pointing down.
fn colour(x: f32, y: f32) -> Rgb<f32> {
    let near = 0.80 + 0.05 * (5.0 * x + 1.0).sin() + 0.015 * (19.0 * x).sin();
    let far = 0.66 + 0.06 * (7.0 * x).sin() + 0.02 * (23.0 * x + 2.0).sin();
    if y > near {
        return NEAR_HILLS;
    }
    if y > far {
        // Haze: the deeper in the valley, the paler.
        return mix(FAR_HILLS, HORIZON, (y - far) * 1.5);
    }
    let sky = mix(ZENITH, HORIZON, y / 0.7);
    let distance = ((x - 0.68).powi(2) + (0.75 * (y - 0.45)).powi(2)).sqrt();
    let glow = if distance < 0.05 { 1.0 } else { (-12.0 * (distance - 0.05)).exp() * 0.7 };
    mix(sky, SUN, glow)
}

fn mix(from: Rgb<f32>, to: Rgb<f32>, share: f32) -> Rgb<f32> {
    let share = share.clamp(0.0, 1.0);
    Rgb([0, 1, 2].map(|channel| from.0[channel] + (to.0[channel] - from.0[channel]) * share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_decodes_and_is_no_plain_colour() {
        let picture = image::load_from_memory(&jpeg().unwrap()).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (WIDTH, HEIGHT));
        let (sky, hills) = (picture.get_pixel(10, 10).0, picture.get_pixel(10, HEIGHT - 10).0);
        assert!(sky[2] > hills[2] + 30, "{sky:?} {hills:?}");
    }
}
