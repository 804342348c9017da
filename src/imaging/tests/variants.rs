//! Sizes, cuts, margins and formats of variants.

use image::{DynamicImage, GenericImageView as _, Rgb, RgbImage, Rgba};

use super::pixels;
use crate::domain::image::{Colour, Fit, Focus, Handling, Variant, Watermarks};
use crate::imaging::fixtures::{
    LIMITS, animated_webp, difference, exif, gif, holed, jpeg, made, noise, picture, png, probed, rendered,
};
use crate::imaging::{Format, ImagingError, Rendered, Step, render};

fn variant(width: u32, height: u32, fit: Fit) -> Variant {
    Variant { name: "v".to_owned(), width: Some(width), height: Some(height), fit, ..Variant::default() }
}

fn one(bytes: &[u8], variant: Variant) -> Rendered {
    let artifact = made(bytes, &[variant], &Handling::default()).unwrap().remove(0);
    let decoded = pixels(&artifact);
    assert_eq!(decoded.dimensions(), (artifact.width, artifact.height));
    artifact
}

/// Red at the left, green in the middle, blue at the right.
fn flag() -> Vec<u8> {
    png(RgbImage::from_fn(300, 100, |x, _| match x {
        0..100 => Rgb([255, 0, 0]),
        100..200 => Rgb([0, 255, 0]),
        _ => Rgb([0, 0, 255]),
    }))
}

#[test]
fn cover_cuts_where_the_focus_says() {
    let cut = |focus| {
        let square = Variant { focus, format: Some(Format::Png), ..variant(50, 50, Fit::Cover) };
        let artifact = one(&flag(), square);
        assert_eq!((artifact.width, artifact.height), (50, 50));
        let shown = pixels(&artifact).to_rgb8();
        assert_eq!(shown.get_pixel(3, 3), shown.get_pixel(46, 46));
        shown.get_pixel(25, 25).0
    };
    assert_eq!(cut(Focus::Centre), [0, 255, 0]);
    assert_eq!(cut(Focus::Point { x: 0, y: 5000 }), [255, 0, 0]);
    assert_eq!(cut(Focus::Point { x: 8333, y: 0 }), [0, 0, 255]);
}

#[test]
fn a_cut_is_as_sharp_as_its_picture_and_made_of_no_more_than_it_needs() {
    let original = noise(101, 60);
    let artifact =
        one(&png(original.clone()), Variant { format: Some(Format::Png), ..variant(60, 60, Fit::Cover) });
    // 20.5 pixels on either side would blur it.
    let expected = image::imageops::crop_imm(&original, 21, 0, 60, 60).to_image();
    assert_eq!(pixels(&artifact).to_rgb8(), expected);
    // A cut of a smaller level shows the same as one of the original.
    let source = jpeg(&picture(800, 600), 95);
    let square = |name: &str| Variant { name: name.to_owned(), ..variant(40, 40, Fit::Cover) };
    let large = Variant { name: "large".to_owned(), width: Some(400), ..Variant::default() };
    let both = made(&source, &[large, square("cut")], &Handling::default()).unwrap();
    let (_, mean) = difference(&pixels(&both[1]).to_rgb8(), &pixels(&one(&source, square("cut"))).to_rgb8());
    assert!(mean < 1.5, "{mean}");
}

#[test]
fn contain_fills_what_is_free() {
    let sides = |variant: Variant| {
        let artifact = one(&flag(), variant);
        let shown = pixels(&artifact).to_rgba8();
        (artifact.format, shown.get_pixel(50, 5).0, shown.get_pixel(50, 50).0)
    };
    let square = variant(100, 100, Fit::Contain);
    let black = Some(Colour([0; 3]));
    let (format, margin, middle) = sides(square.clone());
    assert_eq!((format, margin), (Format::Jpeg, [255; 4]), "an opaque picture stays a JPEG");
    assert!(middle[1] > 240 && middle[0] < 16, "{middle:?}");
    let png = Variant { format: Some(Format::Png), ..square };
    assert_eq!(sides(png.clone()), (Format::Png, [0; 4], [0, 255, 0, 255]));
    let on_black = Variant { background: black, ..png };
    assert_eq!(sides(on_black), (Format::Png, [0, 0, 0, 255], [0, 255, 0, 255]));
    // Never enlarged, and in the middle all the same.
    let loose = one(&flag(), Variant { format: Some(Format::Png), ..variant(400, 401, Fit::Contain) });
    let shown = pixels(&loose).to_rgba8();
    assert_eq!([shown.get_pixel(49, 150)[3], shown.get_pixel(50, 150)[3]], [0, 255]);
    assert_eq!([shown.get_pixel(50, 149)[3], shown.get_pixel(50, 250)[3]], [0, 0]);
}

#[test]
fn what_is_transparent_lies_on_the_background() {
    let source = png(holed(64, 64));
    let hole = |variant: Variant| {
        let artifact = one(&source, variant);
        (artifact.format, pixels(&artifact).to_rgba8().get_pixel(4, 4).0)
    };
    let plain = Variant { name: "v".to_owned(), width: Some(32), ..Variant::default() };
    assert_eq!(hole(plain.clone()).1[3], 0);
    let white = hole(Variant { format: Some(Format::Jpeg), ..plain.clone() });
    assert!(white.0 == Format::Jpeg && white.1.iter().all(|c| *c > 250), "{white:?}");
    let blue = Some(Colour([0, 0, 255]));
    let auto = hole(Variant { background: blue, ..plain.clone() });
    assert!(auto.0 == Format::Jpeg && auto.1[2] > 240 && auto.1[0] < 16, "{auto:?}");
    let kept = hole(Variant { background: blue, format: Some(Format::Png), ..plain });
    assert_eq!(kept, (Format::Png, [0, 0, 255, 255]));
}

#[test]
fn nothing_is_enlarged_but_on_demand() {
    let bytes = jpeg(&picture(64, 40), 95);
    for fit in [Fit::Inside, Fit::Cover] {
        let artifact = one(&bytes, variant(128, 80, fit));
        assert_eq!((artifact.width, artifact.height), (64, 40), "{fit:?}");
        let larger = one(&bytes, Variant { enlarge: true, ..variant(128, 80, fit) });
        assert_eq!((larger.width, larger.height), (128, 80), "{fit:?}");
        let (_, mean) = difference(&pixels(&larger).to_rgb8(), &picture(128, 80));
        assert!(mean < 6.0, "{fit:?}: {mean}");
    }
}

#[test]
fn a_variant_beyond_measure_is_not_begun() {
    let wide = Variant { name: "wide".to_owned(), width: Some(16_384), enlarge: true, ..Variant::default() };
    let mut told = 0;
    let result =
        render(&png(noise(8, 8)), &[wide], &Watermarks::new(), &Handling::default(), &LIMITS, &mut |_| {
            told += 1;
            std::ops::ControlFlow::Continue(())
        });
    assert!(matches!(result, Err(ImagingError::Undecodable { .. })) && told == 0);
}

#[test]
fn the_format_and_the_quality_are_as_asked_for() {
    let bytes = jpeg(&picture(160, 90), 95);
    let sized = |format, quality| {
        let wanted = Variant {
            name: "v".to_owned(),
            width: Some(100),
            format: Some(format),
            quality,
            ..Variant::default()
        };
        one(&bytes, wanted)
    };
    for format in [Format::Jpeg, Format::Png, Format::WebP, Format::Avif] {
        if format == Format::Avif || !format.is_built_in() {
            continue;
        }
        let artifact = sized(format, None);
        assert_eq!((artifact.format, probed(&artifact.bytes).unwrap().format), (format, format));
    }
    let [low, usual, high] =
        [Some(20), None, Some(95)].map(|quality| sized(Format::Jpeg, quality).bytes.len());
    assert!(low < usual && usual < high, "{low} {usual} {high}");
}

#[test]
fn a_full_size_in_another_format_is_no_larger_picture() {
    let bytes = png(picture(160, 90));
    let as_jpeg = Variant { name: "v".to_owned(), format: Some(Format::Jpeg), ..Variant::default() };
    let artifact = one(&bytes, as_jpeg.clone());
    assert_eq!((artifact.format, artifact.width, artifact.height), (Format::Jpeg, 160, 90));
    // In its own format it is what `optimized` is.
    let small = jpeg(&picture(160, 90), 30);
    let same = one(&small, as_jpeg.clone());
    assert_eq!(same.bytes, rendered(&small, &[("v", None)]).unwrap()[0].bytes);
    assert!(same.bytes.len() <= small.len());
    let lower = one(&jpeg(&picture(160, 90), 95), Variant { quality: Some(30), ..as_jpeg });
    assert!(lower.bytes.len() < one(&jpeg(&picture(160, 90), 95), Variant::defaults().remove(0)).bytes.len());
}

#[test]
fn an_animation_is_kept_at_full_size_and_shown_by_its_first_frame_otherwise() {
    let first = DynamicImage::from(picture(48, 32)).into_rgba8();
    let second = image::RgbaImage::from_pixel(48, 32, Rgba([9, 9, 9, 255]));
    let bytes = gif(&[first, second]);
    let kept = one(&bytes, Variant { name: "v".to_owned(), ..Variant::default() });
    assert_eq!((kept.format, kept.bytes.len()), (Format::Gif, bytes.len()));
    let still = one(&bytes, Variant { format: Some(Format::Png), ..variant(48, 32, Fit::Inside) });
    let (_, mean) = difference(&pixels(&still).to_rgb8(), &picture(48, 32));
    assert!(mean < 30.0, "{mean}");
    let webp = animated_webp(&holed(24, 16), &exif(1));
    assert_eq!(one(&webp, Variant { name: "v".to_owned(), ..Variant::default() }).format, Format::WebP);
}

#[test]
fn one_placeholder_is_told_before_the_first_artifact() {
    let bytes = jpeg(&picture(160, 90), 95);
    let optimized = || Variant { name: "o".to_owned(), ..Variant::default() };
    let cover = variant(20, 20, Fit::Cover);
    for variants in [vec![optimized()], vec![cover, optimized()], Variant::defaults()] {
        let mut told = Vec::new();
        render(&bytes, &variants, &Watermarks::new(), &Handling::default(), &LIMITS, &mut |step| {
            match step {
                Step::Placeholder(placeholder) => told.push(placeholder.thumbhash),
                Step::Artifact(artifact) => told.push(artifact.name),
                Step::Stage(_) => {}
            }
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(told.len(), 1 + variants.len(), "{told:?}");
        assert!(told[0].len() > 20, "{told:?}");
    }
}
