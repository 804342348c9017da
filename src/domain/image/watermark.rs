//! Pictures that are drawn on artifacts, and where they come to lie.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Variant;
use super::variant::share;

/// Of what shares and opacities are whole numbers.
pub const UNITS: u16 = 10_000;

/// The configured watermarks by name.
pub type Watermarks = BTreeMap<String, Arc<Watermark>>;

/// A picture to draw on artifacts, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Watermark {
    /// Its own width and height in pixels.
    pub size: (u32, u32),
    /// Its pixels: red, green, blue and alpha in a byte each, in sRGB, and not multiplied with alpha.
    pub pixels: Vec<u8>,
    /// How it is drawn.
    pub placement: Placement,
}

impl fmt::Debug for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, placement, pixels: _ } = self;
        f.debug_struct("Watermark").field("size", size).field("placement", placement).finish_non_exhaustive()
    }
}

/// How a watermark is drawn. All numbers are in ten-thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Where it lies.
    pub position: Position,
    /// Its share of the artifact's width.
    pub width: u16,
    /// The share of the artifact's shorter side that stays free around it.
    pub margin: u16,
    /// How much of it is seen.
    pub opacity: u16,
}

/// Where a watermark lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the points of the compass, on a map")]
pub enum Position {
    Centre,
    North,
    NorthEast,
    East,
    #[default]
    SouthEast,
    South,
    SouthWest,
    West,
    NorthWest,
}

/// A part of an artifact, in its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From the left.
    pub left: u32,
    /// From the top.
    pub top: u32,
    /// Width and height, at least one pixel each.
    pub size: (u32, u32),
}

impl Placement {
    /// Where a watermark of this size lies on an artifact of `width` × `height` pixels: always within its margins, and
    /// never nowhere. In the middle, an odd pixel is left at the right and at the bottom.
    #[must_use]
    pub fn place(&self, watermark: (u32, u32), (width, height): (u32, u32)) -> Place {
        let of = |side: u32, part: u16| share(side, part.into(), UNITS.into());
        let shorter = width.min(height);
        // A pixel at least is left between the margins.
        let margin = if self.margin == 0 { 0 } else { of(shorter, self.margin) };
        let margin = margin.min(shorter.saturating_sub(1) / 2);
        let (free_width, free_height) = (width - 2 * margin, height - 2 * margin);
        let wide = of(width, self.width).min(free_width);
        let high = share(watermark.1, wide, watermark.0);
        let size = if high > free_height {
            (share(watermark.0, free_height, watermark.1), free_height)
        } else {
            (wide, high)
        };
        let (across, down) = self.position.parts();
        let from = |free: u32, own: u32, halves: u32| margin + (free - own) * halves / 2;
        Place { left: from(free_width, size.0, across), top: from(free_height, size.1, down), size }
    }
}

impl Position {
    /// How many halves of what is free lie at the left and above.
    fn parts(self) -> (u32, u32) {
        match self {
            Self::NorthWest => (0, 0),
            Self::North => (1, 0),
            Self::NorthEast => (2, 0),
            Self::West => (0, 1),
            Self::Centre => (1, 1),
            Self::East => (2, 1),
            Self::SouthWest => (0, 2),
            Self::South => (1, 2),
            Self::SouthEast => (2, 2),
        }
    }
}

/// No watermark has the name that a variant gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variant}: there is no watermark {watermark} any more")]
pub struct UnknownWatermark {
    variant: String,
    watermark: String,
}

/// Those that `variants` name.
///
/// # Errors
///
/// Where one is not there.
pub fn named_by(variants: &[Variant], watermarks: &Watermarks) -> Result<Watermarks, UnknownWatermark> {
    let named = variants.iter().filter_map(|variant| Some((variant, variant.watermark.as_ref()?)));
    named
        .map(|(variant, name)| match watermarks.get(name) {
            Some(watermark) => Ok((name.clone(), Arc::clone(watermark))),
            None => Err(UnknownWatermark { variant: variant.name.clone(), watermark: name.clone() }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACEMENT: Placement =
        Placement { position: Position::SouthEast, width: 2_000, margin: 200, opacity: 5_000 };

    fn at(position: Position, artifact: (u32, u32)) -> (u32, u32) {
        let place = Placement { position, margin: 1_000, ..PLACEMENT }.place((40, 20), artifact);
        assert_eq!(place.size, (20, 10));
        (place.left, place.top)
    }

    #[test]
    fn each_position_keeps_its_margin() {
        use Position::{Centre, East, North, NorthEast, NorthWest, South, SouthEast, SouthWest, West};
        let all = [NorthWest, North, NorthEast, West, Centre, East, SouthWest, South, SouthEast];
        let expected = [(5, 5), (40, 5), (75, 5), (5, 20), (40, 20), (75, 20), (5, 35), (40, 35), (75, 35)];
        assert_eq!(all.map(|position| at(position, (100, 50))), expected);
        // What is odd is at the right and at the bottom.
        assert_eq!(at(Centre, (101, 51)), (40, 20));
    }

    #[test]
    fn the_aspect_ratio_stays_and_nothing_stands_over() {
        let place = |watermark, artifact| PLACEMENT.place(watermark, artifact);
        assert_eq!(place((400, 100), (1000, 500)), Place { left: 790, top: 440, size: (200, 50) });
        // Too tall at that width
        assert_eq!(place((100, 400), (1000, 500)), Place { left: 870, top: 10, size: (120, 480) });
        let whole = Placement { width: UNITS, margin: 1_000, ..PLACEMENT };
        assert_eq!(whole.place((100, 10), (200, 100)), Place { left: 10, top: 72, size: (180, 18) });
        let flush = Placement { margin: 0, width: UNITS, ..PLACEMENT };
        assert_eq!(flush.place((7, 7), (30, 30)), Place { left: 0, top: 0, size: (30, 30) });
    }

    #[test]
    fn the_smallest_artifact_has_it_too() {
        for margin in [0, 1, 200, 5_000] {
            for artifact in [(1, 1), (2, 1), (1, 3), (3, 2), (15, 4), (1, 16_384)] {
                for watermark in [(1, 1), (1_000_000, 1), (1, 1_000_000), (1000, 1000)] {
                    for width in [100, 3_333, UNITS] {
                        let Place { left, top, size } =
                            Placement { margin, width, ..PLACEMENT }.place(watermark, artifact);
                        assert!(size.0 > 0 && size.1 > 0, "{watermark:?} on {artifact:?}");
                        assert!(left + size.0 <= artifact.0 && top + size.1 <= artifact.1);
                    }
                }
            }
        }
    }

    #[test]
    fn one_that_is_gone_is_named() {
        let marked = |name: &str| Variant {
            name: "a".to_owned(),
            watermark: Some(name.to_owned()),
            ..Variant::default()
        };
        let watermark = Watermark { size: (1, 1), pixels: vec![0; 4], placement: PLACEMENT };
        let all =
            Watermarks::from(["logo", "other"].map(|name| (name.to_owned(), Arc::new(watermark.clone()))));
        let named = named_by(&[marked("logo"), Variant::default(), marked("logo")], &all).unwrap();
        assert_eq!(named.keys().collect::<Vec<_>>(), ["logo"]);
        let error = named_by(&[marked("logo"), marked("gone")], &all).unwrap_err();
        assert_eq!(error.to_string(), "a: there is no watermark gone any more");
    }
}
