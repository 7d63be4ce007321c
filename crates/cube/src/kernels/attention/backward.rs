//! The gradients of queries, and of keys and values: shares are computed again from the sums that the forward kept.

use super::tiles::{Place, Rows, Tile, Work, load, products, put, start, store, weighted};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::ir::ElemType;
use burn_cubecl::cubecl::prelude::*;

/// Values of shared memory of [`queries_kernel`]: own queries and results' gradients, keys and values, gradients of scores.
pub(super) fn shared_by_queries(tile: Tile) -> usize {
    2 * (tile.own + tile.other) * tile.pitch() + tile.own * tile.other
}

/// Values of shared memory of [`keys_kernel`]: the same, and shares.
pub(super) fn shared_by_keys(tile: Tile) -> usize {
    2 * (tile.own + tile.other) * tile.pitch() + 2 * tile.own * tile.other
}

/// `Σ y·dy` of each row and head.
#[cube(launch)]
pub(super) fn dots_kernel<F: Float>(
    y: &[F],
    dy: &[F],
    dots: &mut [f32],
    y_at: Place,
    dots_at: Place,
    work: Work,
    count: usize,
    #[comptime] width: usize,
    #[define(F)] _stored: ElemType,
) {
    if ABSOLUTE_POS < count {
        // Heads are next to each other in rows, and rows in clips.
        let head = ABSOLUTE_POS % work.heads;
        let row = ABSOLUTE_POS / work.heads % work.own;
        let clip = ABSOLUTE_POS / work.heads / work.own;
        let at = start(&y_at, clip, head) + row * y_at.row;
        let mut dot = 0.0f32;
        for i in 0..width {
            dot += f32::cast_from(y[at + i]) * f32::cast_from(dy[at + i]);
        }
        dots[start(&dots_at, clip, head) + row * dots_at.row] = dot;
    }
}

/// A cube computes the gradients of `own` queries of one head: `dq = Σ_j scale·p·(dy·v − Σ y·dy)·k`.
#[cube(launch)]
pub(super) fn queries_kernel<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    dy: &[F],
    table: &[f32],
    sums: &[f32],
    dots: &[f32],
    out: &mut [F],
    queries_at: Place,
    keys_at: Place,
    values_at: Place,
    y_at: Place,
    sums_at: Place,
    out_at: Place,
    work: Work,
    scale: f32,
    #[comptime] tile: Tile,
    #[define(F)] _stored: ElemType,
) {
    let mut queries = Shared::<[f32]>::new_slice(comptime!(tile.own * tile.pitch()));
    let mut grads = Shared::<[f32]>::new_slice(comptime!(tile.own * tile.pitch()));
    let mut keys = Shared::<[f32]>::new_slice(comptime!(tile.other * tile.pitch()));
    let mut values = Shared::<[f32]>::new_slice(comptime!(tile.other * tile.pitch()));
    let mut dscores = Shared::<[f32]>::new_slice(comptime!(tile.own * tile.other));
    if CUBE_POS < work.cubes {
        let clip = CUBE_POS / work.blocks / work.heads;
        let head = CUBE_POS / work.blocks % work.heads;
        let first = CUBE_POS % work.blocks * comptime!(tile.own);
        let angles = clip * work.angles;
        let column = UNIT_POS as usize % comptime!(tile.side());
        let row = UNIT_POS as usize / comptime!(tile.side());
        let own = Rows { start: start(&queries_at, clip, head), stride: queries_at.row, first, end: work.own, angles };
        load(q, table, &mut queries, &own, comptime!(tile.own), comptime!(tile.turned), tile);
        let own = Rows { start: start(&y_at, clip, head), stride: y_at.row, first, end: work.own, angles };
        load(dy, table, &mut grads, &own, comptime!(tile.own), false, tile);

        let mut scores = Array::<f32>::new(comptime!(tile.own_each() * tile.other_each()));
        let mut dshares = Array::<f32>::new(comptime!(tile.own_each() * tile.other_each()));
        let mut dq = Array::<f32>::new(comptime!(tile.own_each() * tile.columns_each()));
        let mut sum = Array::<f32>::new(comptime!(tile.own_each()));
        let mut dot = Array::<f32>::new(comptime!(tile.own_each()));
        let stats = start(&sums_at, clip, head);
        #[unroll]
        for r in 0..comptime!(tile.own_each()) {
            let line = first + row + comptime!(r * tile.side());
            sum[r] = 0.0f32;
            dot[r] = 0.0f32;
            if line < work.own {
                sum[r] = sums[stats + line * sums_at.row];
                dot[r] = dots[stats + line * sums_at.row];
            }
        }
        #[unroll]
        for i in 0..comptime!(tile.own_each() * tile.columns_each()) {
            dq[i] = 0.0f32;
        }
        let mut at = 0usize.runtime();
        while at < work.other {
            let others =
                Rows { start: start(&keys_at, clip, head), stride: keys_at.row, first: at, end: work.other, angles };
            load(k, table, &mut keys, &others, comptime!(tile.other), comptime!(tile.turned), tile);
            let others = Rows {
                start: start(&values_at, clip, head),
                stride: values_at.row,
                first: at,
                end: work.other,
                angles,
            };
            load(v, table, &mut values, &others, comptime!(tile.other), false, tile);
            sync_cube();

            products(&queries, &keys, &mut scores, comptime!(tile.own_each()), comptime!(tile.other_each()), tile);
            products(&grads, &values, &mut dshares, comptime!(tile.own_each()), comptime!(tile.other_each()), tile);
            #[unroll]
            for r in 0..comptime!(tile.own_each()) {
                let line = (row + comptime!(r * tile.side())) * comptime!(tile.other);
                #[unroll]
                for c in 0..comptime!(tile.other_each()) {
                    let i = comptime!(r * tile.other_each() + c);
                    let key = column + comptime!(c * tile.side());
                    let mut dscore = 0.0f32;
                    if at + key < work.other {
                        let share = Exp::exp(scores[i] * scale - sum[r]);
                        dscore = share * (dshares[i] - dot[r]) * scale;
                    }
                    dscores[line + key] = dscore;
                }
            }
            sync_cube();

            let (count, down) = comptime!((tile.other, tile.own_each()));
            weighted(&dscores, &keys, &mut dq, count, 1usize, count, down, tile);
            sync_cube();
            at += comptime!(tile.other);
        }
        put(&dq, &mut queries, comptime!(tile.own_each()), tile);
        sync_cube();
        let own = Rows { start: start(&out_at, clip, head), stride: out_at.row, first, end: work.own, angles };
        store(&queries, table, out, &own, comptime!(tile.own), comptime!(tile.turned), tile);
    }
}

/// A cube computes the gradients of `own` keys and values of one head, over all its queries.
#[cube(launch)]
pub(super) fn keys_kernel<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    dy: &[F],
    table: &[f32],
    sums: &[f32],
    dots: &[f32],
    out: &mut [F],
    queries_at: Place,
    keys_at: Place,
    values_at: Place,
    y_at: Place,
    sums_at: Place,
    dkeys_at: Place,
    dvalues_at: Place,
    work: Work,
    scale: f32,
    #[comptime] tile: Tile,
    #[define(F)] _stored: ElemType,
) {
    let mut keys = Shared::<[f32]>::new_slice(comptime!(tile.own * tile.pitch()));
    let mut values = Shared::<[f32]>::new_slice(comptime!(tile.own * tile.pitch()));
    let mut queries = Shared::<[f32]>::new_slice(comptime!(tile.other * tile.pitch()));
    let mut grads = Shared::<[f32]>::new_slice(comptime!(tile.other * tile.pitch()));
    let mut shares = Shared::<[f32]>::new_slice(comptime!(tile.other * tile.own));
    let mut dscores = Shared::<[f32]>::new_slice(comptime!(tile.other * tile.own));
    if CUBE_POS < work.cubes {
        let clip = CUBE_POS / work.blocks / work.heads;
        let head = CUBE_POS / work.blocks % work.heads;
        let first = CUBE_POS % work.blocks * comptime!(tile.own);
        let angles = clip * work.angles;
        let column = UNIT_POS as usize % comptime!(tile.side());
        let row = UNIT_POS as usize / comptime!(tile.side());
        let own = Rows { start: start(&keys_at, clip, head), stride: keys_at.row, first, end: work.own, angles };
        load(k, table, &mut keys, &own, comptime!(tile.own), comptime!(tile.turned), tile);
        let own = Rows { start: start(&values_at, clip, head), stride: values_at.row, first, end: work.own, angles };
        load(v, table, &mut values, &own, comptime!(tile.own), false, tile);

        let mut scores = Array::<f32>::new(comptime!(tile.other_each() * tile.own_each()));
        let mut dshares = Array::<f32>::new(comptime!(tile.other_each() * tile.own_each()));
        let mut dkeys = Array::<f32>::new(comptime!(tile.own_each() * tile.columns_each()));
        let mut dvalues = Array::<f32>::new(comptime!(tile.own_each() * tile.columns_each()));
        #[unroll]
        for i in 0..comptime!(tile.own_each() * tile.columns_each()) {
            dkeys[i] = 0.0f32;
            dvalues[i] = 0.0f32;
        }
        let stats = start(&sums_at, clip, head);
        let mut at = 0usize.runtime();
        while at < work.other {
            let others = Rows {
                start: start(&queries_at, clip, head),
                stride: queries_at.row,
                first: at,
                end: work.other,
                angles,
            };
            load(q, table, &mut queries, &others, comptime!(tile.other), comptime!(tile.turned), tile);
            let others = Rows { start: start(&y_at, clip, head), stride: y_at.row, first: at, end: work.other, angles };
            load(dy, table, &mut grads, &others, comptime!(tile.other), false, tile);
            sync_cube();

            products(&queries, &keys, &mut scores, comptime!(tile.other_each()), comptime!(tile.own_each()), tile);
            products(&grads, &values, &mut dshares, comptime!(tile.other_each()), comptime!(tile.own_each()), tile);
            #[unroll]
            for r in 0..comptime!(tile.other_each()) {
                let line = row + comptime!(r * tile.side());
                let mut sum = 0.0f32;
                let mut dot = 0.0f32;
                if at + line < work.other {
                    sum = sums[stats + (at + line) * sums_at.row];
                    dot = dots[stats + (at + line) * sums_at.row];
                }
                #[unroll]
                for c in 0..comptime!(tile.own_each()) {
                    let i = comptime!(r * tile.own_each() + c);
                    let mut share = 0.0f32;
                    if at + line < work.other {
                        share = Exp::exp(scores[i] * scale - sum);
                    }
                    let place = line * comptime!(tile.own) + column + comptime!(c * tile.side());
                    shares[place] = share;
                    dscores[place] = share * (dshares[i] - dot) * scale;
                }
            }
            sync_cube();

            let (step, count, down) = comptime!((tile.own, tile.other, tile.own_each()));
            weighted(&dscores, &queries, &mut dkeys, 1usize, step, count, down, tile);
            weighted(&shares, &grads, &mut dvalues, 1usize, step, count, down, tile);
            sync_cube();
            at += comptime!(tile.other);
        }
        put(&dkeys, &mut keys, comptime!(tile.own_each()), tile);
        put(&dvalues, &mut values, comptime!(tile.own_each()), tile);
        sync_cube();
        let own = Rows { start: start(&dkeys_at, clip, head), stride: dkeys_at.row, first, end: work.own, angles };
        store(&keys, table, out, &own, comptime!(tile.own), comptime!(tile.turned), tile);
        let own = Rows { start: start(&dvalues_at, clip, head), stride: dvalues_at.row, first, end: work.own, angles };
        store(&values, table, out, &own, comptime!(tile.own), false, tile);
    }
}
