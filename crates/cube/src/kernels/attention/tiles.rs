//! Tiles of rows in the memory that the units of a cube share, and the products of two of them.
//!
//! A cube has [`SIDE`]² units in a square. Of a product of two tiles a unit computes every `SIDE`-th row and column: neighbours
//! read neighbours, and a value that is read once is multiplied several times.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// Units along each side of a cube.
const SIDE: usize = 8;

/// Sizes that a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    /// Rows that a cube computes results for.
    pub own: usize,
    /// Rows of the other side that are in memory at once.
    pub other: usize,
    /// Width of a head.
    pub width: usize,
    /// Whether queries and keys are turned by a table of angles.
    pub turned: bool,
}

impl Tile {
    /// Rows of results of one unit.
    pub fn own_each(self) -> usize {
        self.own / SIDE
    }

    /// Rows of the other side of one unit.
    pub fn other_each(self) -> usize {
        self.other / SIDE
    }

    /// Columns of one unit; some of the last are past the width, and zero.
    pub fn columns_each(self) -> usize {
        self.width.div_ceil(SIDE)
    }

    /// Values from row to row in shared memory: odd, so that neighbours are in different banks.
    pub fn pitch(self) -> usize {
        self.columns_each() * SIDE + 1
    }

    pub fn units(self) -> usize {
        SIDE * SIDE
    }

    pub fn side(self) -> usize {
        SIDE
    }
}

/// The largest tile whose `values` of shared memory, in f32, fit into `bytes`.
pub(super) fn largest(width: usize, turned: bool, bytes: usize, values: impl Fn(Tile) -> usize) -> Option<Tile> {
    let sizes = [(32, 32), (32, 16), (16, 16), (16, 8), (8, 8)];
    let mut tiles = sizes.into_iter().map(|(own, other)| Tile { own, other, width, turned });
    tiles.find(|tile| values(*tile) * size_of::<f32>() <= bytes)
}

/// Where the rows of a clip's head are in a tensor: `first + clip·a + head·b + row·c`.
#[derive(CubeType, CubeLaunch, Clone)]
pub(super) struct Place {
    pub first: usize,
    pub clip: usize,
    pub head: usize,
    pub row: usize,
}

/// Where a cube is in the work: which rows of which head of which clip.
#[derive(CubeType, CubeLaunch, Clone)]
pub(super) struct Work {
    /// Cubes of one head.
    pub blocks: usize,
    /// Cubes in all.
    pub cubes: usize,
    pub heads: usize,
    /// Rows that results are for.
    pub own: usize,
    /// Rows of the other side.
    pub other: usize,
    /// Values from one clip's angles to the next's; none where all clips have the same.
    pub angles: usize,
}

/// The first value of a clip's head.
#[cube]
pub(super) fn start(place: &Place, clip: usize, head: usize) -> usize {
    place.first + clip * place.clip + head * place.head
}

/// Rows `first..` of a head, as far as `end`.
#[derive(CubeType, Clone)]
pub(super) struct Rows {
    /// The head's first value, and from row to row.
    pub start: usize,
    pub stride: usize,
    pub first: usize,
    pub end: usize,
    /// The first angle of the clip.
    pub angles: usize,
}

/// Copies `count` rows to shared memory in f32, zeros for those past the end and beside the width.
#[cube]
pub(super) fn load<F: Float>(
    x: &[F],
    table: &[f32],
    to: &mut Shared<[f32]>,
    rows: &Rows,
    #[comptime] count: usize,
    #[comptime] turned: bool,
    #[comptime] tile: Tile,
) {
    let mut i = UNIT_POS as usize;
    while i < comptime!(count * (tile.pitch() - 1)) {
        let row = i / comptime!(tile.pitch() - 1);
        let column = i % comptime!(tile.pitch() - 1);
        let mut value = 0.0f32;
        if rows.first + row < rows.end && column < comptime!(tile.width) {
            let at = rows.start + (rows.first + row) * rows.stride + column;
            value = f32::cast_from(x[at]);
            if comptime!(turned) {
                let angle = rows.angles + (rows.first + row) * comptime!(2 * tile.width) + column;
                let sine = table[angle + comptime!(tile.width)];
                value *= table[angle];
                if column % 2 == 0 {
                    value -= f32::cast_from(x[at + 1]) * sine;
                } else {
                    value += f32::cast_from(x[at - 1]) * sine;
                }
            }
        }
        to[row * comptime!(tile.pitch()) + column] = value;
        i += comptime!(tile.units());
    }
}

/// Writes `count` rows from shared memory, as far as the end; turned back where they were turned.
#[cube]
pub(super) fn store<F: Float>(
    from: &Shared<[f32]>,
    table: &[f32],
    x: &mut [F],
    rows: &Rows,
    #[comptime] count: usize,
    #[comptime] turned: bool,
    #[comptime] tile: Tile,
) {
    let mut i = UNIT_POS as usize;
    while i < comptime!(count * tile.width) {
        let row = i / comptime!(tile.width);
        let column = i % comptime!(tile.width);
        if rows.first + row < rows.end {
            let at = row * comptime!(tile.pitch()) + column;
            let mut value = from[at];
            if comptime!(turned) {
                let angle = rows.angles + (rows.first + row) * comptime!(2 * tile.width) + column;
                let sines = angle + comptime!(tile.width);
                value *= table[angle];
                if column % 2 == 0 {
                    value += from[at + 1] * table[sines + 1];
                } else {
                    value -= from[at - 1] * table[sines - 1];
                }
            }
            x[rows.start + (rows.first + row) * rows.stride + column] = F::cast_from(value);
        }
        i += comptime!(tile.units());
    }
}

/// `out[r, c] = Σ a[r]·b[c]` over the width, for this unit's rows of `a` and of `b`.
#[cube]
pub(super) fn products(
    a: &Shared<[f32]>,
    b: &Shared<[f32]>,
    out: &mut Array<f32>,
    #[comptime] down: usize,
    #[comptime] across: usize,
    #[comptime] tile: Tile,
) {
    let column = UNIT_POS as usize % comptime!(tile.side());
    let row = UNIT_POS as usize / comptime!(tile.side());
    #[unroll]
    for i in 0..comptime!(down * across) {
        out[i] = 0.0f32;
    }
    let mut right = Array::<f32>::new(across);
    for x in 0..comptime!(tile.width) {
        #[unroll]
        for c in 0..across {
            right[c] = b[(column + comptime!(c * tile.side())) * comptime!(tile.pitch()) + x];
        }
        #[unroll]
        for r in 0..down {
            let left = a[(row + comptime!(r * tile.side())) * comptime!(tile.pitch()) + x];
            #[unroll]
            for c in 0..across {
                out[comptime!(r * across + c)] = out[comptime!(r * across + c)] + left * right[c];
            }
        }
    }
}

/// `out[r, c] += Σ weights[r, j]·rows[j, c]` over `count` rows, for this unit's rows of the weights, which are
/// `weights[r·row_step + j·step]`, and columns.
#[cube]
pub(super) fn weighted(
    weights: &Shared<[f32]>,
    rows: &Shared<[f32]>,
    out: &mut Array<f32>,
    #[comptime] row_step: usize,
    #[comptime] step: usize,
    #[comptime] count: usize,
    #[comptime] down: usize,
    #[comptime] tile: Tile,
) {
    let column = UNIT_POS as usize % comptime!(tile.side());
    let row = UNIT_POS as usize / comptime!(tile.side());
    let mut right = Array::<f32>::new(comptime!(tile.columns_each()));
    for j in 0..count {
        #[unroll]
        for c in 0..comptime!(tile.columns_each()) {
            right[c] = rows[j * comptime!(tile.pitch()) + column + comptime!(c * tile.side())];
        }
        #[unroll]
        for r in 0..down {
            let left = weights[(row + comptime!(r * tile.side())) * row_step + j * step];
            #[unroll]
            for c in 0..comptime!(tile.columns_each()) {
                let at = comptime!(r * tile.columns_each() + c);
                out[at] = out[at] + left * right[c];
            }
        }
    }
}

/// Puts this unit's rows and columns into shared memory.
#[cube]
pub(super) fn put(values: &Array<f32>, rows: &mut Shared<[f32]>, #[comptime] down: usize, #[comptime] tile: Tile) {
    let column = UNIT_POS as usize % comptime!(tile.side());
    let row = UNIT_POS as usize / comptime!(tile.side());
    #[unroll]
    for r in 0..down {
        #[unroll]
        for c in 0..comptime!(tile.columns_each()) {
            let at = (row + comptime!(r * tile.side())) * comptime!(tile.pitch()) + column;
            rows[at + comptime!(c * tile.side())] = values[comptime!(r * tile.columns_each() + c)];
        }
    }
}
