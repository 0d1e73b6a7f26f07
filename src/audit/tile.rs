//! The names of the pieces of a log, as in [C2SP tlog-tiles](https://c2sp.org/tlog-tiles).
//!
//! ```text
//! tile/0/x001/x234/067          256 hashes of leaves: tile 1,234,067 of level 0
//! tile/1/000.p/17               the first 17 hashes of a tile that is not full yet: each the root of a full tile below
//! tile/entries/x001/x234/067    the records of that tile of level 0, each after its length (2 bytes, big-endian)
//! ```

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Kind, Result};

/// The hashes of a full tile: "Full tiles MUST be exactly 256 hashes wide".
pub const WIDTH: u64 = 256;
/// The longest record that a bundle can hold: lengths have 16 bits.
pub const MAX_ENTRY: usize = u16::MAX as usize;
/// "a decimal ASCII integer between 0 and 63"
const MAX_LEVEL: u8 = 63;

/// What a tile is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Hashes of that level: each the root over 256 to the power of it leaves.
    Hashes(u8),
    /// Records.
    Entries,
}

/// One piece of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    content: Content,
    index: u64,
    width: u64,
}

impl Tile {
    /// A full tile.
    #[must_use]
    pub const fn full(content: Content, index: u64) -> Self {
        Self { content, index, width: WIDTH }
    }

    /// The tiles of one kind in a log of `size` records, from tile `from` on: full ones, and at the end perhaps one that is not.
    pub fn of(content: Content, size: u64, from: u64) -> impl Iterator<Item = Self> {
        let count = count(content, size);
        (from..count.div_ceil(WIDTH)).map(move |index| Self {
            content,
            index,
            width: (count - index * WIDTH).min(WIDTH),
        })
    }

    /// What it is made of.
    #[must_use]
    pub const fn content(&self) -> Content {
        self.content
    }

    /// The number of its first hash or record among those of its level.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.index.saturating_mul(WIDTH)
    }

    /// Which of its level.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or records: 1 to 256.
    #[must_use]
    pub const fn width(&self) -> u64 {
        self.width
    }

    /// Whether it is in a log of `size` records.
    #[must_use]
    pub fn is_in(&self, size: u64) -> bool {
        self.start().checked_add(self.width).is_some_and(|end| end <= count(self.content, size))
    }
}

/// How many hashes or records of that kind a log of `size` records has.
fn count(content: Content, size: u64) -> u64 {
    match content {
        Content::Entries => size,
        Content::Hashes(level) => size.checked_shr(8 * u32::from(level)).unwrap_or(0),
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Hashes(level) => write!(f, "tile/{level}/")?,
            Content::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        while let Some(group) = groups.pop() {
            // "All but the last path element MUST begin with an x."
            let (x, slash) = if groups.is_empty() { ("", "") } else { ("x", "/") };
            write!(f, "{x}{group:03}{slash}")?;
        }
        if self.width < WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl FromStr for Tile {
    type Err = Error;

    /// Reads a path that begins with `tile/`. There is one way to write each tile.
    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (content, rest) = text.strip_prefix("tile/")?.split_once('/')?;
            let content = match content {
                "entries" => Content::Entries,
                level => Content::Hashes(level.parse().ok().filter(|level| *level <= MAX_LEVEL)?),
            };
            let (rest, width) = match rest.split_once(".p/") {
                Some((rest, width)) => (rest, width.parse().ok().filter(|width| (1..WIDTH).contains(width))?),
                None => (rest, WIDTH),
            };
            let mut index = 0_u64;
            for group in rest.split('/') {
                let digits = group.strip_prefix('x').unwrap_or(group);
                index = index.checked_mul(1000)?.checked_add(digits.parse().ok().filter(|group| *group < 1000)?)?;
            }
            let tile = Self { content, index, width };
            (tile.to_string() == text).then_some(tile)
        };
        parse().ok_or_else(|| {
            Error::new(Kind::NotFound, "this is no path of a tile")
                .hint("as in tile/0/x001/234, tile/1/000.p/17 and tile/entries/000")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_has_one_name() {
        for name in
            ["tile/0/x001/x234/067", "tile/1/000.p/17", "tile/entries/x001/000", "tile/63/999", "tile/0/255.p/255"]
        {
            assert_eq!(name.parse::<Tile>().unwrap().to_string(), name);
        }
        let wrong = [
            "",
            "tile/",
            "tile/0",
            "tile/0/",
            "tile/0/0",
            "tile/00/000",
            "tile/64/000",
            "tile/-1/000",
            "tile/0/x000/001",
            "tile/0/001/001",
            "tile/0/x001",
            "tile/0/1000",
            "tile/0/+01",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p/",
            "tile/0/000/",
            "tile/data/000",
            "tile/0/../000",
            "tile/0/000.p/1.p/1",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
        ];
        for name in wrong {
            assert_eq!(name.parse::<Tile>().unwrap_err().kind(), Kind::NotFound, "{name}");
        }
    }

    /// The example of the standard: "a tree of size 70,000 will be represented by 273 full level 0 tiles, one partial level 0
    /// tile of width 112, one full level 1 tile, one partial level 1 tile of width 17, and one partial level 2 tile of width 1."
    #[test]
    fn a_size_has_its_tiles() {
        let tiles = |level| Tile::of(Content::Hashes(level), 70_000, 0).collect::<Vec<_>>();
        let (zero, one, two) = (tiles(0), tiles(1), tiles(2));
        assert_eq!((zero.len(), zero[272].width(), zero[273].width()), (274, 256, 112));
        assert_eq!((one.len(), one[0].width(), one[1].width()), (2, 256, 17));
        assert_eq!((two.len(), two[0].to_string().as_str()), (1, "tile/2/000.p/1"));
        assert_eq!(tiles(3), []);
        assert_eq!(Tile::of(Content::Hashes(0), 256, 0).map(|tile| tile.width()).collect::<Vec<_>>(), [256]);
        for (name, there) in [
            ("tile/0/272", true),
            ("tile/0/273", false),
            ("tile/0/273.p/112", true),
            ("tile/0/273.p/113", false),
            ("tile/2/000.p/1", true),
            ("tile/3/000.p/1", false),
            ("tile/entries/273.p/1", true),
            ("tile/63/000.p/1", false),
        ] {
            assert_eq!(name.parse::<Tile>().unwrap().is_in(70_000), there, "{name}");
        }
    }
}
