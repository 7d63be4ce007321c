//! `softmax(scale·q·kᵀ)·v` without a row of scores in memory: keys come by in tiles, and what was added up is scaled down
//! whenever a higher score appears.

use super::tiles::{Place, Rows, Tile, Work, load, products, put, start, store, weighted};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::ir::ElemType;
use burn_cubecl::cubecl::prelude::*;

/// Below any score, and not infinite: differences with it are numbers.
pub(super) const LOWEST: f32 = -1e30;

/// Values of shared memory: own rows, a tile of keys and one of values, shares, and a maximum of each unit and row.
pub(super) fn shared(tile: Tile) -> usize {
    (tile.own + 2 * tile.other) * tile.pitch() + tile.own * tile.other + tile.own * tile.side()
}

/// A cube computes `own` rows of one head. `sums` gets the logarithm of each row's sum of exponentials; `y` nothing unless
/// `results`. `lowest` is [`LOWEST`].
#[cube(launch)]
pub(super) fn forward_kernel<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    table: &[f32],
    y: &mut [F],
    sums: &mut [f32],
    queries_at: Place,
    keys_at: Place,
    values_at: Place,
    y_at: Place,
    sums_at: Place,
    work: Work,
    scale: f32,
    lowest: f32,
    #[comptime] results: bool,
    #[comptime] tile: Tile,
    #[define(F)] _stored: ElemType,
) {
    let mut queries = Shared::<[f32]>::new_slice(comptime!(tile.own * tile.pitch()));
    let mut keys = Shared::<[f32]>::new_slice(comptime!(tile.other * tile.pitch()));
    let mut values = Shared::<[f32]>::new_slice(comptime!(tile.other * tile.pitch()));
    let mut shares = Shared::<[f32]>::new_slice(comptime!(tile.own * tile.other));
    let mut highs = Shared::<[f32]>::new_slice(comptime!(tile.own * tile.side()));
    if CUBE_POS < work.cubes {
        let clip = CUBE_POS / work.blocks / work.heads;
        let head = CUBE_POS / work.blocks % work.heads;
        let first = CUBE_POS % work.blocks * comptime!(tile.own);
        let angles = clip * work.angles;
        let column = UNIT_POS as usize % comptime!(tile.side());
        let row = UNIT_POS as usize / comptime!(tile.side());
        let own = Rows { start: start(&queries_at, clip, head), stride: queries_at.row, first, end: work.own, angles };
        load(q, table, &mut queries, &own, comptime!(tile.own), comptime!(tile.turned), tile);

        let mut scores = Array::<f32>::new(comptime!(tile.own_each() * tile.other_each()));
        let mut sum = Array::<f32>::new(comptime!(tile.own_each() * tile.columns_each()));
        let mut high = Array::<f32>::new(comptime!(tile.own_each()));
        let mut total = Array::<f32>::new(comptime!(tile.own_each()));
        #[unroll]
        for r in 0..comptime!(tile.own_each()) {
            high[r] = lowest;
            total[r] = 0.0f32;
        }
        #[unroll]
        for i in 0..comptime!(tile.own_each() * tile.columns_each()) {
            sum[i] = 0.0f32;
        }
        let mut at = 0usize.runtime();
        while at < work.other {
            let others =
                Rows { start: start(&keys_at, clip, head), stride: keys_at.row, first: at, end: work.other, angles };
            load(k, table, &mut keys, &others, comptime!(tile.other), comptime!(tile.turned), tile);
            if comptime!(results) {
                let others = Rows {
                    start: start(&values_at, clip, head),
                    stride: values_at.row,
                    first: at,
                    end: work.other,
                    angles,
                };
                load(v, table, &mut values, &others, comptime!(tile.other), false, tile);
            }
            sync_cube();

            products(&queries, &keys, &mut scores, comptime!(tile.own_each()), comptime!(tile.other_each()), tile);
            #[unroll]
            for r in 0..comptime!(tile.own_each()) {
                let mut highest = lowest;
                #[unroll]
                for c in 0..comptime!(tile.other_each()) {
                    let i = comptime!(r * tile.other_each() + c);
                    let score = scores[i] * scale;
                    scores[i] = score;
                    if at + column + comptime!(c * tile.side()) < work.other && score > highest {
                        highest = score;
                    }
                }
                highs[(row + comptime!(r * tile.side())) * comptime!(tile.side()) + column] = highest;
            }
            sync_cube();

            #[unroll]
            for r in 0..comptime!(tile.own_each()) {
                let line = row + comptime!(r * tile.side());
                let mut highest = high[r];
                for i in 0..comptime!(tile.side()) {
                    let other = highs[line * comptime!(tile.side()) + i];
                    if other > highest {
                        highest = other;
                    }
                }
                let keep = Exp::exp(high[r] - highest);
                high[r] = highest;
                total[r] = total[r] * keep;
                #[unroll]
                for c in 0..comptime!(tile.columns_each()) {
                    let i = comptime!(r * tile.columns_each() + c);
                    sum[i] = sum[i] * keep;
                }
                #[unroll]
                for c in 0..comptime!(tile.other_each()) {
                    let key = column + comptime!(c * tile.side());
                    let mut share = 0.0f32;
                    if at + key < work.other {
                        share = Exp::exp(scores[comptime!(r * tile.other_each() + c)] - highest);
                    }
                    shares[line * comptime!(tile.other) + key] = share;
                }
            }
            sync_cube();

            #[unroll]
            for r in 0..comptime!(tile.own_each()) {
                let mut added = 0.0f32;
                for j in 0..comptime!(tile.other) {
                    added += shares[(row + comptime!(r * tile.side())) * comptime!(tile.other) + j];
                }
                total[r] = total[r] + added;
            }
            if comptime!(results) {
                let (count, down) = comptime!((tile.other, tile.own_each()));
                weighted(&shares, &values, &mut sum, count, 1usize, count, down, tile);
            }
            sync_cube();
            at += comptime!(tile.other);
        }

        let sums_of_head = start(&sums_at, clip, head);
        #[unroll]
        for r in 0..comptime!(tile.own_each()) {
            let line = first + row + comptime!(r * tile.side());
            if column == 0 && line < work.own {
                sums[sums_of_head + line * sums_at.row] = high[r] + Log::ln(total[r]);
            }
            #[unroll]
            for c in 0..comptime!(tile.columns_each()) {
                let i = comptime!(r * tile.columns_each() + c);
                sum[i] = sum[i] / total[r];
            }
        }
        if comptime!(results) {
            put(&sum, &mut queries, comptime!(tile.own_each()), tile);
            sync_cube();
            let own = Rows { start: start(&y_at, clip, head), stride: y_at.row, first, end: work.own, angles };
            store(&queries, table, y, &own, comptime!(tile.own), false, tile);
        }
    }
}
