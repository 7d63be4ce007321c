//! Memory on a GPU that ranks sum where it lies.
#![allow(unsafe_code)]

/// Floats in the memory of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDevice {
    address: u64,
    len: usize,
}

impl OnDevice {
    /// `len` floats at an address of the GPU's memory.
    ///
    /// # Safety
    /// Whoever hands this to [`Collective::begin_sum_on`](crate::Collective::begin_sum_on) keeps these floats where they are, in the
    /// memory of the GPU that those ranks' engine works on, and has no work on that GPU that reads or writes them until the sum
    /// is there.
    pub const unsafe fn new(address: u64, len: usize) -> Self {
        Self { address, len }
    }

    /// Where the floats begin.
    #[cfg_attr(not(feature = "nccl"), expect(dead_code, reason = "asked by NCCL"))]
    pub(crate) fn address(self) -> u64 {
        self.address
    }

    /// How many there are.
    #[cfg_attr(not(feature = "nccl"), expect(dead_code, reason = "asked by NCCL"))]
    pub(crate) fn len(self) -> usize {
        self.len
    }
}
