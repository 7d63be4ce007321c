//! Pointers of callers, checked as far as they can be: null, alignment, length.

use crate::failure::Failure;
use std::ffi::{CStr, c_char};

/// # Safety
/// `pointer` is null or points to a `T` that outlives `'a` and is not changed meanwhile.
pub(crate) unsafe fn reference<'a, T>(pointer: *const T, name: &'static str) -> Result<&'a T, Failure> {
    aligned(pointer, name)?;
    // SAFETY: it is neither null nor misaligned; the rest is the caller's promise.
    unsafe { pointer.as_ref() }.ok_or(Failure::Null(name))
}

/// # Safety
/// `pointer` is null or points to `count` initialised values that outlive `'a` and are not changed meanwhile.
pub(crate) unsafe fn values<'a, T: Copy>(
    pointer: *const T,
    count: usize,
    name: &'static str,
) -> Result<&'a [T], Failure> {
    checked(pointer, count, name)?;
    // SAFETY: it is neither null nor misaligned, and no longer than a slice may be; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// Writes all of `values` to an array of the caller's, which need not be initialised.
///
/// # Safety
/// `pointer` is null or points to memory for `room` values that nothing else uses meanwhile.
pub(crate) unsafe fn write<T: Copy>(
    values: &[T],
    pointer: *mut T,
    room: usize,
    name: &'static str,
) -> Result<(), Failure> {
    checked(pointer, room, name)?;
    if values.len() > room {
        return Err(Failure::Room { name, room, needed: values.len() });
    }
    // SAFETY: there is room for them, aligned; memory that nothing else uses is not that of `values`.
    unsafe { pointer.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    Ok(())
}

/// # Safety
/// `pointer` is null or points to a string that ends with a NUL, outlives `'a` and is not changed meanwhile.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, name: &'static str) -> Result<&'a CStr, Failure> {
    if pointer.is_null() {
        return Err(Failure::Null(name));
    }
    // SAFETY: it is not null; the rest is the caller's promise.
    Ok(unsafe { CStr::from_ptr(pointer) })
}

fn checked<T>(pointer: *const T, count: usize, name: &'static str) -> Result<(), Failure> {
    aligned(pointer, name)?;
    match count.checked_mul(size_of::<T>()) {
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(()),
        _ => Err(Failure::Length { name, count }),
    }
}

fn aligned<T>(pointer: *const T, name: &'static str) -> Result<(), Failure> {
    match pointer {
        pointer if pointer.is_null() => Err(Failure::Null(name)),
        pointer if !pointer.is_aligned() => Err(Failure::Misaligned(name)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_checked_is() {
        let data = [1.0f32, 2.0, 3.0];
        let odd = data.as_ptr().cast::<u8>().wrapping_add(1).cast::<f32>();
        // SAFETY: `data` has three values; the other pointers are refused before they are read.
        unsafe {
            assert_eq!(values(data.as_ptr(), 3, "x").unwrap(), data);
            assert_eq!(*reference(data.as_ptr(), "x").unwrap(), 1.0);
            assert!(matches!(values(std::ptr::null::<f32>(), 0, "x"), Err(Failure::Null("x"))));
            assert!(matches!(values(odd, 1, "x"), Err(Failure::Misaligned("x"))));
            assert!(matches!(reference(odd, "x"), Err(Failure::Misaligned("x"))));
            assert!(matches!(values(data.as_ptr(), usize::MAX / 4, "x"), Err(Failure::Length { .. })));
            assert!(matches!(text(std::ptr::null(), "x"), Err(Failure::Null("x"))));
            assert_eq!(text(c"a".as_ptr(), "x").unwrap(), c"a");
        }
    }

    #[test]
    fn nothing_is_written_past_the_room() {
        let mut out = [0u8; 4];
        // SAFETY: `out` has four values, of which at most three are named.
        unsafe {
            write(&[1, 2, 3], out.as_mut_ptr(), 3, "out").unwrap();
            assert!(matches!(write(&[9; 4], out.as_mut_ptr(), 3, "out"), Err(Failure::Room { needed: 4, .. })));
            assert!(matches!(write(&[9; 4], std::ptr::null_mut(), 4, "out"), Err(Failure::Null("out"))));
        }
        assert_eq!(out, [1, 2, 3, 0]);
    }
}
