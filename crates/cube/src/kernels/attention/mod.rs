//! Attention and its gradient, computed in f32 whatever tensors are stored in, without a matrix of scores: over the rows of one
//! linear layer, or over heads.
//!
//! Written in tiles of shared memory (`tiles.rs`), for any number of rows and any width of heads that fits. cubek-attention has
//! a gradient too; each of its units goes over whole rows in global memory, heads must be apart, and it turns nothing.

mod backward;
mod forward;
mod tiles;

use super::{alike, cubes, empty, empty_of, spread, stored};
use burn_backend::ops::FloatTensorOps;
use burn_backend::{Shape, Slice, TensorMetadata};
use burn_cubecl::cubecl::CubeDim;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeRuntime};
use tiles::{PlaceLaunch, Tile, WorkLaunch};
use vjepa_compiler::ir::{Dim, Sizes};
use vjepa_lower::{KernelError, size};

/// Shared memory that every device has, in bytes: what WebGPU guarantees.
const GUARANTEED: usize = 16 << 10;

/// Whether every device has the shared memory for heads of this width.
pub(super) fn fits(width: usize) -> bool {
    width > 0 && tiles::largest(width, false, GUARANTEED, backward::shared_by_keys).is_some()
}

/// Where the rows of a clip's head are: `first + clip·a + head·b + row·c`.
#[derive(Clone, Copy)]
struct At {
    first: usize,
    clip: usize,
    head: usize,
    row: usize,
}

impl At {
    fn arg<R: CubeRuntime>(self) -> PlaceLaunch<R> {
        PlaceLaunch::new(self.first, self.clip, self.head, self.row)
    }
}

/// Attention of some clips of one size.
#[derive(Clone, Copy)]
struct Problem {
    clips: usize,
    heads: usize,
    rows: usize,
    keys: usize,
    width: usize,
    scale: f32,
    q: At,
    k: At,
    v: At,
    /// Of results and their gradients.
    y: At,
    sums: At,
}

impl Problem {
    /// `q[B, H, N, d]`, `k` and `v[B, H, M, d]`.
    fn of_heads([clips, heads, rows, width]: [usize; 4], keys: usize, scale: f64) -> Self {
        let at =
            |rows: usize, width: usize| At { first: 0, clip: heads * rows * width, head: rows * width, row: width };
        let (q, k) = (at(rows, width), at(keys, width));
        Self { clips, heads, rows, keys, width, scale: scale as f32, q, k, v: k, y: q, sums: at(rows, 1) }
    }

    /// Clips of rows `[R, 3·H·d]`, from row `first`.
    fn of_rows(first: usize, [clips, rows]: [usize; 2], [heads, width]: [usize; 2], scale: f64) -> Self {
        let at = |third: usize, columns: usize, width: usize| At {
            first: first * columns + third * heads * width,
            clip: rows * columns,
            head: width,
            row: columns,
        };
        let of = |third: usize| at(third, 3 * heads * width, width);
        let (y, sums) = (at(0, heads * width, width), at(0, heads, 1));
        let scale = scale as f32;
        Self { clips, heads, rows, keys: rows, width, scale, q: of(0), k: of(1), v: of(2), y, sums }
    }

    fn is_empty(&self) -> bool {
        self.clips * self.heads * self.rows * self.keys == 0
    }

    /// The largest tile that the device has the shared memory for.
    fn tile<R: CubeRuntime>(
        &self,
        beside: &CubeTensor<R>,
        turned: bool,
        values: impl Fn(Tile) -> usize,
    ) -> Result<Tile, KernelError> {
        let bytes = beside.client.properties().hardware.max_shared_memory_size.max(GUARANTEED);
        let refused = || KernelError::Shape { expected: "narrower heads: less shared memory", got: vec![self.width] };
        tiles::largest(self.width, turned, bytes, values).ok_or_else(refused)
    }

    /// What the cubes share out, of results for `own` rows each of a head.
    fn work<R: CubeRuntime>(&self, tile: Tile, own: usize, other: usize, table: &Table<R>) -> (usize, WorkLaunch<R>) {
        let blocks = own.div_ceil(tile.own);
        let cubes = blocks * self.clips * self.heads;
        (cubes, WorkLaunch::new(blocks, cubes, self.heads, own, other, table.step))
    }
}

/// Angles that queries and keys are turned by, in f32, and from one clip's to the next's; without, some tensor of f32 that is
/// not read.
struct Table<R: CubeRuntime> {
    tensor: CubeTensor<R>,
    step: usize,
    turned: bool,
}

impl<R: CubeRuntime> Table<R> {
    fn none(beside: &CubeTensor<R>) -> Self {
        Self { tensor: beside.clone(), step: 0, turned: false }
    }

    /// `[B or 1, N, 2d]`.
    fn new(tensor: &CubeTensor<R>) -> Self {
        let shape = tensor.shape();
        let shared = shape.first() == Some(&1);
        let step = if shared { 0 } else { shape.iter().skip(1).product() };
        Self { tensor: tensor.clone(), step, turned: true }
    }
}

/// Writes `y`, where there is one, and the logarithms of the sums of exponentials.
fn run_forward<R: CubeRuntime>(
    problem: &Problem,
    [q, k, v]: [&CubeTensor<R>; 3],
    table: &Table<R>,
    y: Option<&CubeTensor<R>>,
    sums: &CubeTensor<R>,
) -> Result<(), KernelError> {
    if problem.is_empty() {
        return Ok(());
    }
    let tile = problem.tile(q, table.turned, forward::shared)?;
    let (count, work) = problem.work(tile, problem.rows, problem.keys, table);
    let written = y.cloned().unwrap_or_else(|| empty_of(q, Shape::new([1]), q.dtype()));
    forward::forward_kernel::launch::<R>(
        &q.client,
        cubes(q, count),
        CubeDim::new_1d(tile.units() as u32),
        q.clone().into_buffer_arg(),
        k.clone().into_buffer_arg(),
        v.clone().into_buffer_arg(),
        table.tensor.clone().into_buffer_arg(),
        written.into_buffer_arg(),
        sums.clone().into_buffer_arg(),
        problem.q.arg(),
        problem.k.arg(),
        problem.v.arg(),
        problem.y.arg(),
        problem.sums.arg(),
        work,
        problem.scale,
        forward::LOWEST,
        y.is_some(),
        tile,
        stored(q),
    );
    Ok(())
}

/// What a gradient reads, beside the table.
struct Known<'a, R: CubeRuntime> {
    q: &'a CubeTensor<R>,
    k: &'a CubeTensor<R>,
    v: &'a CubeTensor<R>,
    y: &'a CubeTensor<R>,
    dy: &'a CubeTensor<R>,
    sums: &'a CubeTensor<R>,
}

/// Writes the gradient of queries to `dq`, and those of keys and values to places of `dkv`.
fn run_backward<R: CubeRuntime>(
    problem: &Problem,
    known: &Known<'_, R>,
    table: &Table<R>,
    (dq, dq_at): (&CubeTensor<R>, At),
    (dkv, dk_at, dv_at): (&CubeTensor<R>, At, At),
) -> Result<(), KernelError> {
    if problem.is_empty() {
        return Ok(());
    }
    let Known { q, k, v, y, dy, sums } = *known;
    let client = q.client.clone();
    let dots = empty(q, sums.shape());
    let count = problem.clips * problem.heads * problem.rows;
    let (groups, dim) = spread(q, count);
    backward::dots_kernel::launch::<R>(
        &client,
        groups,
        dim,
        y.clone().into_buffer_arg(),
        dy.clone().into_buffer_arg(),
        dots.clone().into_buffer_arg(),
        problem.y.arg(),
        problem.sums.arg(),
        WorkLaunch::new(1, count, problem.heads, problem.rows, problem.keys, 0),
        count,
        problem.width,
        stored(q),
    );
    let inputs = || [q, k, v, dy, &table.tensor, sums, &dots].map(|tensor| tensor.clone().into_buffer_arg());

    let tile = problem.tile(q, table.turned, backward::shared_by_queries)?;
    let (count, work) = problem.work(tile, problem.rows, problem.keys, table);
    let [a, b, c, d, e, f, g] = inputs();
    backward::queries_kernel::launch::<R>(
        &client,
        cubes(q, count),
        CubeDim::new_1d(tile.units() as u32),
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        dq.clone().into_buffer_arg(),
        problem.q.arg(),
        problem.k.arg(),
        problem.v.arg(),
        problem.y.arg(),
        problem.sums.arg(),
        dq_at.arg(),
        work,
        problem.scale,
        tile,
        stored(q),
    );

    let tile = problem.tile(q, table.turned, backward::shared_by_keys)?;
    let (count, work) = problem.work(tile, problem.keys, problem.rows, table);
    let [a, b, c, d, e, f, g] = inputs();
    backward::keys_kernel::launch::<R>(
        &client,
        cubes(q, count),
        CubeDim::new_1d(tile.units() as u32),
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        dkv.clone().into_buffer_arg(),
        problem.q.arg(),
        problem.k.arg(),
        problem.v.arg(),
        problem.y.arg(),
        problem.sums.arg(),
        dk_at.arg(),
        dv_at.arg(),
        work,
        problem.scale,
        tile,
        stored(q),
    );
    Ok(())
}

/// Zeros of the shape and the type of a tensor.
fn zeros<R: CubeRuntime>(like: &CubeTensor<R>) -> CubeTensor<R> {
    CubeBackend::<R>::float_zeros(like.shape(), &like.device, like.dtype().into())
}

/// `softmax(scale·q·kᵀ)·v` of `[B, H, N, d]`.
pub(super) fn heads<R: CubeRuntime>([q, k, v]: [CubeTensor<R>; 3], scale: f64) -> Result<CubeTensor<R>, KernelError> {
    let shape = shape4(&q)?;
    let [clips, count, rows, _] = shape;
    let y = alike(&q);
    let sums = empty(&q, Shape::new([clips, count, rows]));
    let problem = Problem::of_heads(shape, shape4(&k)?[2], scale);
    if problem.is_empty() {
        return Ok(zeros(&y));
    }
    run_forward(&problem, [&q, &k, &v], &Table::none(&sums), Some(&y), &sums)?;
    Ok(y)
}

/// `dq, dk, dv` of `(q, k, v, y, dy)`.
pub(super) fn heads_grad<R: CubeRuntime>(
    [q, k, v, y, dy]: [CubeTensor<R>; 5],
    scale: f64,
) -> Result<Vec<CubeTensor<R>>, KernelError> {
    let shape = shape4(&q)?;
    let ([clips, count, rows, width], [_, _, keys, _]) = (shape, shape4(&k)?);
    let problem = Problem::of_heads(shape, keys, scale);
    if problem.is_empty() {
        return Ok([&q, &k, &v].map(zeros).into());
    }
    let sums = empty(&q, Shape::new([clips, count, rows]));
    let table = Table::none(&sums);
    run_forward(&problem, [&q, &k, &v], &table, None, &sums)?;
    let dq = alike(&q);
    // One buffer for both: devices read few in a kernel.
    let dkv = empty_of(&q, Shape::new([2 * clips, count, keys, width]), q.dtype());
    let dv_at = At { first: clips * problem.v.clip, ..problem.v };
    let known = Known { q: &q, k: &k, v: &v, y: &y, dy: &dy, sums: &sums };
    run_backward(&problem, &known, &table, (&dq, problem.q), (&dkv, problem.k, dv_at))?;
    let half = |from: usize| {
        let whole = |size: usize| Slice::new(0, Some(size as isize), 1);
        let clips = Slice::new(from as isize, Some((from + clips) as isize), 1);
        CubeBackend::<R>::float_slice(dkv.clone(), &[clips, whole(count), whole(keys), whole(width)])
    };
    let (dk, dv) = (half(0), half(clips));
    Ok(vec![dq, dk, dv])
}

/// What the operations on rows have in common.
pub(super) struct Packed<'a> {
    pub heads: usize,
    pub scale: f64,
    /// B and N of each part in turn.
    pub parts: &'a [Dim],
    pub sizes: &'a Sizes,
}

impl Packed<'_> {
    /// The parts, each where its rows begin, with its table, or with a tensor of f32 in the place of one.
    fn problems<R: CubeRuntime>(
        &self,
        qkv: &CubeTensor<R>,
        tables: &[CubeTensor<R>],
        unread: &CubeTensor<R>,
    ) -> Result<Vec<(Problem, Table<R>)>, KernelError> {
        let [all, columns] = matrix(qkv)?;
        let width = columns / 3 / self.heads.max(1);
        let mut first = 0;
        let mut problems = Vec::with_capacity(self.parts.len() / 2);
        for (number, part) in self.parts.chunks_exact(2).enumerate() {
            let [clips, rows] = [size(&part[0], self.sizes)?, size(&part[1], self.sizes)?];
            let table = tables.get(number).map_or_else(|| Table::none(unread), Table::new);
            problems.push((Problem::of_rows(first, [clips, rows], [self.heads, width], self.scale), table));
            first += clips * rows;
        }
        if first != all {
            return Err(KernelError::Shape { expected: "as many rows as the parts have", got: vec![all, first] });
        }
        Ok(problems)
    }
}

/// `y[R, H·d]` and the logarithms of the sums, `[R, H]`, of `qkv[R, 3·H·d]`, with a table of angles for each part or none.
pub(super) fn packed<R: CubeRuntime>(
    op: &Packed<'_>,
    qkv: CubeTensor<R>,
    tables: &[CubeTensor<R>],
) -> Result<[CubeTensor<R>; 2], KernelError> {
    let [rows, columns] = matrix(&qkv)?;
    let y = empty_of(&qkv, Shape::new([rows, columns / 3]), qkv.dtype());
    let sums = empty(&qkv, Shape::new([rows, op.heads]));
    for (problem, table) in op.problems(&qkv, tables, &sums)? {
        run_forward(&problem, [&qkv; 3], &table, Some(&y), &sums)?;
    }
    Ok([y, sums])
}

/// `dqkv`; sums that were not kept are computed again.
pub(super) fn packed_grad<R: CubeRuntime>(
    op: &Packed<'_>,
    [qkv, y, dy]: [CubeTensor<R>; 3],
    kept: Option<CubeTensor<R>>,
    tables: &[CubeTensor<R>],
) -> Result<CubeTensor<R>, KernelError> {
    let [rows, _] = matrix(&qkv)?;
    let sums = kept.clone().unwrap_or_else(|| empty(&qkv, Shape::new([rows, op.heads])));
    let dqkv = alike(&qkv);
    for (problem, table) in op.problems(&qkv, tables, &sums)? {
        if kept.is_none() {
            run_forward(&problem, [&qkv; 3], &table, None, &sums)?;
        }
        let known = Known { q: &qkv, k: &qkv, v: &qkv, y: &y, dy: &dy, sums: &sums };
        run_backward(&problem, &known, &table, (&dqkv, problem.q), (&dqkv, problem.k, problem.v))?;
    }
    Ok(dqkv)
}

fn matrix<R: CubeRuntime>(x: &CubeTensor<R>) -> Result<[usize; 2], KernelError> {
    x.shape().to_vec().try_into().map_err(|got| KernelError::Shape { expected: "rows of a matrix", got })
}

fn shape4<R: CubeRuntime>(x: &CubeTensor<R>) -> Result<[usize; 4], KernelError> {
    x.shape().to_vec().try_into().map_err(|got| KernelError::Shape { expected: "[B, H, N, d]", got })
}
