//! What is shown of a picture before it is there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::RgbaImage;

use super::ImagingError;
use super::resize::Pyramid;
use crate::domain::image::{Colour, Placeholder, Variant};

/// The longest side that a ThumbHash is made of.
const SIDE: u32 = 100;
/// Colours that have these many leading bits in common are one.
const BITS: u32 = 4;

pub(super) fn of(pyramid: &mut Pyramid<'_>) -> Result<Placeholder, ImagingError> {
    let small = Variant { width: Some(SIDE), height: Some(SIDE), ..Variant::default() };
    let (width, height) = pyramid.size();
    let (width, height) = small.geometry(width, height).size;
    let pixels = pyramid.level(width, height)?.to_rgba8();
    let hash = thumbhash::rgba_to_thumb_hash(width as usize, height as usize, &pixels);
    Ok(Placeholder { thumbhash: STANDARD.encode(hash), dominant_color: dominant(&pixels) })
}

/// The mean of those colours of which there are most, each counted as far as it can be seen.
fn dominant(pixels: &RgbaImage) -> Colour {
    #[derive(Clone, Copy, Default)]
    struct Bin {
        weight: u64,
        sum: [u64; 3],
    }
    let mut bins = vec![Bin::default(); 1 << (3 * BITS)];
    for pixel in pixels.pixels() {
        let [r, g, b, alpha] = pixel.0;
        let index = [r, g, b].iter().fold(0, |index, c| index << BITS | usize::from(c >> (8 - BITS)));
        let weight = u64::from(alpha);
        bins[index].weight += weight;
        for (sum, c) in bins[index].sum.iter_mut().zip([r, g, b]) {
            *sum += weight * u64::from(c);
        }
    }
    let most = bins.iter().max_by_key(|bin| bin.weight).copied().unwrap_or_default();
    // Where nothing can be seen, it is black.
    let mean = |sum: u64| (sum + most.weight / 2).checked_div(most.weight).unwrap_or(0);
    Colour(most.sum.map(|sum| u8::try_from(mean(sum)).unwrap_or(u8::MAX)))
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, Rgba};

    use super::*;
    use crate::imaging::resize::Scale;

    fn placeholder(pixels: RgbaImage) -> Placeholder {
        let size = pixels.dimensions();
        of(&mut Pyramid::new(&DynamicImage::from(pixels), size, Scale::FULL)).unwrap()
    }

    #[test]
    fn the_dominant_colour_is_seen_and_no_mixture() {
        // Three parts of orange, two of blue, and much that is transparent.
        let pixels = RgbaImage::from_fn(100, 100, |x, _| match x {
            0..30 => Rgba([250, 130, 10, 255]),
            30..50 => Rgba([0, 0, 255, 255]),
            _ => Rgba([0, 255, 0, 0]),
        });
        assert_eq!(placeholder(pixels).dominant_color.to_string(), "#fa820a");
        assert_eq!(placeholder(RgbaImage::new(3, 3)).dominant_color.to_string(), "#000000");
    }

    #[test]
    fn the_hash_is_that_of_the_picture() {
        let pixels = RgbaImage::from_fn(640, 320, |x, _| Rgba([if x < 320 { 255 } else { 0 }, 60, 60, 255]));
        let hash = STANDARD.decode(placeholder(pixels).thumbhash).unwrap();
        let (width, height, shown) = thumbhash::thumb_hash_to_rgba(&hash).unwrap();
        let red = |x: usize| shown[4 * (height / 2 * width + x)];
        assert!(red(2) > 180 && red(width - 3) < 80, "{} and {}", red(2), red(width - 3));
        assert!(width > height);
        // A strip of pixels has a hash, too.
        for (width, height) in [(1, 1), (5000, 1), (1, 5000)] {
            assert!(!placeholder(RgbaImage::new(width, height)).thumbhash.is_empty());
        }
    }
}
