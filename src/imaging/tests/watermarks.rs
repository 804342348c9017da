//! Watermarks on artifacts.

use std::ops::ControlFlow;
use std::sync::Arc;

use image::{GrayAlphaImage, GrayImage, LumaA, Rgb, RgbImage, Rgba, RgbaImage};

use super::pixels;
use crate::domain::image::{
    Colour, Fit, Handling, Placement, Position, UNITS, Variant, Watermark, Watermarks,
};
use crate::imaging::fixtures::{LIMITS, jpeg, picture, png};
use crate::imaging::{Format, ImagingError, Rendered, Step, render};

const RED: Rgba<u8> = Rgba([255, 0, 0, 255]);

/// A square of one colour in the corner at the bottom right, of a tenth of the width.
fn corner(colour: Rgba<u8>, opacity: u16) -> Watermarks {
    let placement = Placement { position: Position::SouthEast, width: 1_000, margin: 0, opacity };
    let pixels = RgbaImage::from_pixel(8, 8, colour).into_raw();
    [("mark".to_owned(), Arc::new(Watermark { size: (8, 8), pixels, placement }))].into()
}

fn marked() -> Variant {
    Variant { name: "v".to_owned(), watermark: Some("mark".to_owned()), ..Variant::default() }
}

fn as_png(width: impl Into<Option<u32>>) -> Variant {
    Variant { width: width.into(), format: Some(Format::Png), ..marked() }
}

fn made(bytes: &[u8], variants: &[Variant], watermarks: &Watermarks) -> Result<Vec<Rendered>, ImagingError> {
    let mut artifacts = Vec::new();
    render(bytes, variants, watermarks, &Handling::default(), &LIMITS, &mut |step| {
        if let Step::Artifact(artifact) = step {
            artifacts.push(artifact);
        }
        ControlFlow::Continue(())
    })?;
    Ok(artifacts)
}

fn one(bytes: &[u8], variant: Variant, watermarks: &Watermarks) -> Rendered {
    made(bytes, &[variant], watermarks).unwrap().remove(0)
}

#[test]
fn the_corner_is_mixed_and_nothing_else_changes() {
    let source = png(picture(200, 100));
    for width in [Some(100), None] {
        let artifact = one(&source, as_png(width), &corner(RED, 5_000));
        let plain = one(&source, Variant { watermark: None, ..as_png(width) }, &Watermarks::new());
        assert_eq!((artifact.width, artifact.height), (plain.width, plain.height));
        let (shown, plain) = (pixels(&artifact).to_rgb8(), pixels(&plain).to_rgb8());
        let side = shown.width() / 10;
        for (x, y, now) in shown.enumerate_pixels() {
            let Rgb([r, g, b]) = *plain.get_pixel(x, y);
            let is_below = x >= shown.width() - side && y >= shown.height() - side;
            let half = |of: u8, with: u16| u8::try_from((u16::from(of) + with).div_ceil(2)).unwrap();
            let expected = if is_below { [half(r, 255), half(g, 0), half(b, 0)] } else { [r, g, b] };
            assert_eq!(now.0, expected, "{x}, {y}");
        }
    }
}

#[test]
fn at_full_size_it_is_no_optimized_original() {
    let small = jpeg(&picture(160, 90), 20);
    let auto = one(&small, marked(), &corner(RED, UNITS));
    let shown = pixels(&auto).to_rgb8();
    let Rgb([r, g, b]) = *shown.get_pixel(155, 85);
    assert!(auto.format == Format::Jpeg && r > 230 && g < 30 && b < 30, "{r} {g} {b}");
    assert_eq!(shown.dimensions(), (160, 90));
    let kept = one(&png(picture(160, 90)), as_png(None), &corner(RED, UNITS));
    assert_eq!((kept.format, pixels(&kept).to_rgb8().get_pixel(155, 85).0), (Format::Png, [255, 0, 0]));
}

#[test]
fn it_is_seen_where_the_picture_is_not() {
    let hole = png(RgbaImage::from_pixel(100, 100, Rgba([0, 255, 0, 0])));
    let shown = pixels(&one(&hole, as_png(50), &corner(RED, 5_000))).to_rgba8();
    assert_eq!(shown.get_pixel(49, 49).0, [255, 0, 0, 128]);
    assert_eq!(shown.get_pixel(44, 49)[3], 0);
    let auto = one(&hole, Variant { width: Some(50), ..marked() }, &corner(RED, UNITS));
    assert_eq!(auto.format, Format::Png);
    // Also on what is put around a picture, and behind it.
    let contain = Variant { height: Some(100), fit: Fit::Contain, ..as_png(100) };
    let wide = png(RgbImage::from_pixel(200, 100, Rgb([0, 0, 255])));
    let shown = pixels(&one(&wide, contain.clone(), &corner(RED, UNITS))).to_rgba8();
    assert_eq!([shown.get_pixel(99, 99).0, shown.get_pixel(0, 99).0], [RED.0, [0; 4]]);
    let on_white = Variant { background: Some(Colour::WHITE), ..contain };
    let shown = pixels(&one(&hole, on_white, &corner(RED, 5_000))).to_rgba8();
    assert_eq!(shown.get_pixel(99, 99).0, [255, 128, 128, 255]);
}

#[test]
fn grey_pictures_get_its_colour() {
    let grey = png(GrayImage::from_pixel(50, 50, [100].into()));
    let with_alpha = png(GrayAlphaImage::from_pixel(50, 50, LumaA([100, 128])));
    for (source, alpha) in [(grey, 255), (with_alpha, 128)] {
        let shown = pixels(&one(&source, as_png(40), &corner(RED, UNITS))).to_rgba8();
        assert_eq!(shown.get_pixel(39, 39), &RED);
        assert_eq!(shown.get_pixel(30, 30).0, [100, 100, 100, alpha]);
    }
}

#[test]
fn what_is_invisible_of_it_does_not_bleed_into_what_is_seen() {
    let (seen, hidden) = ([255, 255, 255, 255], [0, 0, 0, 0]);
    let striped = RgbaImage::from_fn(64, 64, |x, _| Rgba(if x % 8 < 4 { seen } else { hidden }));
    let mut watermarks = corner(RED, UNITS);
    let placement = watermarks["mark"].placement;
    let watermark = Watermark { size: (64, 64), pixels: striped.into_raw(), placement };
    watermarks.insert("mark".to_owned(), Arc::new(watermark));
    let white = png(RgbImage::from_pixel(100, 100, Rgb([255; 3])));
    let shown = pixels(&one(&white, as_png(None), &watermarks)).to_rgb8();
    assert!(shown.pixels().all(|pixel| pixel.0 == [255; 3]), "black would show on white");
}

#[test]
fn variants_have_it_or_not_and_the_same_each_time() {
    let source = jpeg(&picture(300, 200), 90);
    let plain = |name: &str| Variant { name: name.to_owned(), watermark: None, ..as_png(100) };
    let variants = [as_png(100), plain("plain"), Variant { width: Some(50), ..plain("small") }];
    let watermarks = corner(Rgba([1, 200, 3, 99]), 4_321);
    let first = made(&source, &variants, &watermarks).unwrap();
    assert_eq!(first, made(&source, &variants, &watermarks).unwrap());
    let without = made(&source, &variants[1..], &Watermarks::new()).unwrap();
    assert_ne!(first[0].bytes, first[1].bytes);
    assert_eq!(first[1..], without, "drawn on a copy of what others are made of");
}

#[test]
fn a_picture_is_never_left_unmarked() {
    let mut told = 0;
    let variants = [as_png(10)];
    let result = render(
        &png(picture(20, 20)),
        &variants,
        &Watermarks::new(),
        &Handling::default(),
        &LIMITS,
        &mut |_| {
            told += 1;
            ControlFlow::Continue(())
        },
    );
    assert!(matches!(result, Err(ImagingError::UnknownWatermark(_))) && told == 0);
    // One pixel of one
    let dot = one(&png(picture(9, 9)), as_png(1), &corner(RED, UNITS));
    assert_eq!(pixels(&dot).to_rgba8().get_pixel(0, 0), &RED);
}
