//! The memory of a device laid out for a plan.
//!
//! CubeCL's own layout is a ladder of pools, one per range of sizes, which grow page by page and lend nothing to each other: while
//! one of them is at its peak, the pages of the others are idle. A plan knows its largest value before it runs, so that all values
//! can share pages of one size.

use crate::gpu::Gpu;
use burn_backend::{Backend, InstallMemoryPoolsError as Refused, MemoryPoolLayout, SlicedPool};
use burn_cubecl::CubeBackend;

/// Values up to this have pages of their own, so that they do not part the space for large ones.
const SMALL: u64 = 1 << 20;
/// Bytes of those pages.
const SMALL_PAGE: u64 = 32 << 20;

/// Lays the device's memory out for a plan whose largest value has so many bytes. False where it stays as it is: the device's
/// library has no other layout, or something is in its memory already.
///
/// # Errors
/// Why the layout cannot be had, in words.
pub fn lay_out<R: Gpu>(device: &R::Device, largest: u64) -> Result<bool, String> {
    match CubeBackend::<R>::memory_install_pools(device, MemoryPoolLayout::Sliced(pools(largest))) {
        Ok(()) => Ok(true),
        Err(Refused::Unsupported | Refused::PoolsInUse { .. }) => Ok(false),
        Err(refused) => Err(refused.to_string()),
    }
}

/// Pages that the largest value all but fills leave the least over at a step's peak (measured in docs/gpu.md). The library's
/// products ask for a little more than their result, and a last pool takes what nobody foresaw.
fn pools(largest: u64) -> Vec<SlicedPool> {
    let pool = |page_size: u64, max_slice: u64| SlicedPool { page_size, pages: None, max_slice: Some(max_slice) };
    let page = largest.saturating_add(largest / 8).clamp(SMALL_PAGE, u64::MAX / 8).next_multiple_of(SMALL);
    vec![pool(SMALL_PAGE, SMALL), pool(page, page), pool(4 * page, 4 * page)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_the_largest_value_whatever_it_is() {
        for largest in [0, 1, 3 << 20, 3_221_225_472, u64::MAX] {
            let pools = pools(largest);
            assert!(pools.iter().all(|pool| pool.max_slice <= Some(pool.page_size)), "{pools:?}");
            assert!(pools.windows(2).all(|two| two[0].max_slice < two[1].max_slice), "{pools:?}");
            assert!(pools[1].page_size >= largest.min(1 << 60), "{pools:?}");
        }
    }
}
