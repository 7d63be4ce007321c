//! The memory of a device laid out for a plan.
//!
//! CubeCL's own layout is a ladder of pools, one per range of sizes, which grow page by page and lend nothing to each other:
//! while one of them is at its peak, the pages of the others are idle. A plan knows its largest value before it runs, so that
//! all values can share pages of one size.

use crate::gpu::{Gpu, largest_buffer};
use burn_backend::{Backend, InstallMemoryPoolsError as Refused, MemoryPoolLayout, SlicedPool};
use burn_cubecl::CubeBackend;

/// Values up to this have pages of their own, so that they do not part the space for large ones.
const SMALL: u64 = 1 << 20;
/// Bytes of those pages.
const SMALL_PAGE: u64 = 32 << 20;

/// Lays the device's memory out for a plan whose largest value has so many bytes. False where it stays as it is: something is
/// in it already, or the value is larger than the device's buffers.
///
/// # Errors
/// Why the layout cannot be had, in words.
pub(crate) fn lay_out<R: Gpu>(device: &R::Device, largest: u64) -> Result<bool, String> {
    let most = largest_buffer::<R>(device);
    if largest > most {
        return Ok(false);
    }
    match CubeBackend::<R>::memory_install_pools(device, MemoryPoolLayout::Sliced(pools(largest, most))) {
        Ok(()) => Ok(true),
        Err(Refused::Unsupported | Refused::PoolsInUse { .. }) => Ok(false),
        Err(refused) => Err(refused.to_string()),
    }
}

/// Pages that the largest value all but fills leave the least over at a step's peak (measured in docs/gpu.md). The library's
/// products ask for a little more than their result. What nobody foresaw, such as scores that the library's attention writes, has
/// pages of twice the size, of four times and so on, up to the device's largest buffer of `most` bytes.
fn pools(largest: u64, most: u64) -> Vec<SlicedPool> {
    let pool = |page_size: u64, max_slice: u64| SlicedPool { page_size, pages: None, max_slice: Some(max_slice) };
    let most = most.max(SMALL_PAGE);
    let page = largest.saturating_add(largest / 8).max(SMALL_PAGE).checked_next_multiple_of(SMALL).unwrap_or(most);
    let doubled = std::iter::successors(Some(page), |page| page.checked_mul(2)).take_while(|page| *page < most);
    let pages = doubled.chain([most]).map(|page| pool(page, page));
    [pool(SMALL_PAGE, SMALL)].into_iter().chain(pages).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_the_largest_value_and_whatever_the_device_can() {
        for most in [128 << 20, 35 << 30, u64::MAX] {
            for largest in [0, 1, 3 << 20, 127 << 20, most / 3, most] {
                let pools = pools(largest, most);
                assert!(pools.len() < 64, "{}", pools.len());
                assert!(pools.iter().all(|pool| pool.max_slice <= Some(pool.page_size) && pool.page_size <= most));
                assert!(pools.windows(2).all(|two| two[0].max_slice < two[1].max_slice), "{pools:?}");
                assert!(pools[1].page_size >= largest.min(most), "{pools:?}");
                assert_eq!(pools.last().unwrap().max_slice, Some(most));
            }
        }
    }
}
