//! Which part of a picture stays when some of it is cut off.

use image::GrayImage;

use super::ImagingError;
use super::resize::{Area, Pyramid};
use crate::domain::image::Focus;

/// The longer side of the picture in which it is looked where most happens.
const LOOKED_AT: u32 = 256;
/// Less than this, in bits, is no difference.
const SAME: f64 = 1e-6;
const MIDDLE: f64 = 0.5;

/// Where a part of this size lies. It starts at a whole pixel, so that what is not scaled stays sharp.
pub(super) fn area(
    pyramid: &mut Pyramid<'_>,
    focus: Focus,
    (width, height): (f64, f64),
) -> Result<Area, ImagingError> {
    let (whole_width, whole_height) = pyramid.size();
    let whole = (f64::from(whole_width), f64::from(whole_height));
    let (x, y) = match focus {
        Focus::Centre => (MIDDLE, MIDDLE),
        Focus::Point { x, y } => (f64::from(x) / 10_000.0, f64::from(y) / 10_000.0),
        Focus::Entropy => busiest(pyramid, (width / whole.0, height / whole.1))?,
    };
    let start = |centre: f64, part: f64, whole: f64| {
        let most = (whole - part).max(0.0);
        (centre * whole - part / 2.0).round().clamp(0.0, most)
    };
    Ok(Area { left: start(x, width, whole.0), top: start(y, height, whole.1), width, height })
}

/// The centre of the part that has the most entropy, as shares of width and height. Only one of the two is free.
fn busiest(
    pyramid: &mut Pyramid<'_>,
    (part_width, part_height): (f64, f64),
) -> Result<(f64, f64), ImagingError> {
    let (width, height) = pyramid.size();
    let longer = width.max(height);
    let scaled = |side: u32| {
        let side = u64::from(side) * u64::from(LOOKED_AT) / u64::from(longer.max(1));
        u32::try_from(side).unwrap_or(LOOKED_AT).max(1)
    };
    let (width, height) = if longer > LOOKED_AT { (scaled(width), scaled(height)) } else { (width, height) };
    let seen = pyramid.level(width, height)?.to_luma8();
    Ok(if part_width < part_height {
        (busiest_window(&lines(&seen, true), part_width), MIDDLE)
    } else {
        (MIDDLE, busiest_window(&lines(&seen, false), part_height))
    })
}

/// How often each brightness occurs in each column, or in each row.
fn lines(seen: &GrayImage, columns: bool) -> Vec<[u32; 256]> {
    let count = if columns { seen.width() } else { seen.height() };
    let mut lines = vec![[0; 256]; count as usize];
    for (x, y, pixel) in seen.enumerate_pixels() {
        let line = if columns { x } else { y };
        lines[line as usize][usize::from(pixel[0])] += 1;
    }
    lines
}

/// The centre of those adjoining lines that have the most entropy; of several, the one closest to the middle.
fn busiest_window(lines: &[[u32; 256]], share: f64) -> f64 {
    let count = lines.len();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 256")]
    let window = ((count as f64 * share).round() as usize).clamp(1, count.max(1));
    let last = count.saturating_sub(window);
    let mut found: Vec<(usize, f64)> = Vec::with_capacity(last + 1);
    let mut histogram = [0_u32; 256];
    for (at, line) in lines.iter().enumerate() {
        for (sum, n) in histogram.iter_mut().zip(line) {
            *sum += n;
        }
        if at + 1 >= window {
            let start = at + 1 - window;
            found.push((start, entropy(&histogram)));
            for (sum, n) in histogram.iter_mut().zip(&lines[start]) {
                *sum -= n;
            }
        }
    }
    found.sort_by_key(|(start, _)| (2 * start).abs_diff(last));
    let mut found = found.into_iter();
    let Some((_, mut most)) = found.next() else { return MIDDLE };
    let mut centre = MIDDLE;
    for (start, entropy) in found {
        if entropy > most + SAME {
            most = entropy;
            centre = (start as f64 + window as f64 / 2.0) / count as f64;
        }
    }
    centre
}

/// The Shannon entropy of a histogram, in bits a pixel.
fn entropy(histogram: &[u32; 256]) -> f64 {
    let total: f64 = histogram.iter().copied().map(f64::from).sum();
    let shares = histogram.iter().filter(|n| **n > 0).map(|n| f64::from(*n) / total);
    -shares.map(|share| share * share.log2()).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, GenericImage as _, Rgb, RgbImage};

    use super::*;
    use crate::imaging::fixtures::noise;
    use crate::imaging::resize::Scale;

    /// Grey, with something at a place.
    fn calm_but_for(width: u32, height: u32, at: (u32, u32)) -> DynamicImage {
        let mut image = RgbImage::from_pixel(width, height, Rgb([90; 3]));
        image.copy_from(&noise(60, 60), at.0, at.1).unwrap();
        image.into()
    }

    fn found(image: &DynamicImage, focus: Focus, part: (f64, f64)) -> (f64, f64) {
        let area = area(&mut Pyramid::new(image, (image.width(), image.height()), Scale::FULL), focus, part)
            .unwrap();
        assert_eq!((area.width, area.height), part);
        (area.left, area.top)
    }

    #[test]
    fn a_point_is_in_the_middle_as_far_as_there_is_picture() {
        let image = calm_but_for(401, 200, (0, 0));
        let at = |x, y| found(&image, Focus::Point { x, y }, (200.0, 200.0));
        assert_eq!([at(0, 0), at(10_000, 0), at(5000, 9)], [(0.0, 0.0), (201.0, 0.0), (101.0, 0.0)]);
        assert_eq!(found(&image, Focus::Centre, (200.0, 100.0)), (101.0, 50.0));
        // Never beyond the edge, however it is rounded.
        assert_eq!(found(&image, Focus::Point { x: 10_000, y: 0 }, (100.6, 200.0)).0, 300.4);
    }

    #[test]
    fn most_happens_where_there_is_most_to_tell() {
        for at in [10, 300, 530] {
            let wide = calm_but_for(600, 100, (at, 20));
            let (left, top) = found(&wide, Focus::Entropy, (100.0, 100.0));
            assert_eq!(top, 0.0);
            assert!(left <= f64::from(at) + 3.0 && left + 100.0 >= f64::from(at) + 57.0, "{at}: {left}");
            let high = calm_but_for(100, 600, (20, at));
            let (left, top) = found(&high, Focus::Entropy, (100.0, 100.0));
            assert!(left == 0.0 && top <= f64::from(at) + 3.0 && top + 100.0 >= f64::from(at) + 57.0);
        }
        // Where nothing happens, it is the middle.
        let calm = DynamicImage::from(RgbImage::new(600, 100));
        assert_eq!(found(&calm, Focus::Entropy, (100.0, 100.0)), (250.0, 0.0));
    }
}
