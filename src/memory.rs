//! Memory that serves one frame after another. What a network says, and what a frame leaves behind, lies in
//! [`Buffer`]s: dropped, their memory waits for the next one who takes some, so that frame after frame of the same sizes
//! takes no memory from the system. Pieces are settled within a few frames, in which the largest sizes have been asked for.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;

/// Bytes of a cache line, at which every buffer begins.
const LINE: usize = 64;
/// Lines from which a piece is large. Small ones are kept apart, so that a few numbers that somebody keeps do not hold a
/// large piece.
const LARGE: usize = 4096;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Buffers that have been used and will be used again: small ones, large ones.
static FREE: [Mutex<Free>; 2] = [const { Mutex::new(Free(Vec::new())) }; 2];

/// Numbers on a cache-line boundary; a slice for everybody who reads it.
pub struct Buffer<T: Pod = f32> {
    lines: Vec<Line>,
    len: usize,
    reused: bool,
    of: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// `len` zeros in memory of their own, for what stays.
    pub fn owned(len: usize) -> Self {
        Self { lines: zeros(Self::lines_for(len)), len, reused: false, of: PhantomData }
    }

    /// `len` arbitrary numbers in memory that has been used before and will be used again.
    pub fn take(len: usize) -> Self {
        let count = Self::lines_for(len);
        if count == 0 {
            return Self::default();
        }
        // Not in one expression, so that the lock is not held while memory is cleared.
        let free = Free::of(count).take(count);
        Self { lines: free.unwrap_or_else(|| zeros(count)), len, reused: true, of: PhantomData }
    }

    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::take(len);
        buffer.fill(T::zeroed());
        buffer
    }

    /// Drops what comes after the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn lines_for(len: usize) -> usize {
        (len * size_of::<T>()).div_ceil(LINE)
    }
}

fn zeros(count: usize) -> Vec<Line> {
    vec![Line([0; LINE]); count]
}

impl<T: Pod> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.reused {
            let lines = std::mem::take(&mut self.lines);
            Free::of(lines.len()).0.push(lines);
        }
    }
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        let bytes: &[u8] = bytemuck::cast_slice(&self.lines);
        bytemuck::cast_slice(&bytes[..self.len * size_of::<T>()])
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.lines);
        bytemuck::cast_slice_mut(&mut bytes[..self.len * size_of::<T>()])
    }
}

impl<T: Pod> AsRef<[T]> for Buffer<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: Pod> Default for Buffer<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), len: 0, reused: false, of: PhantomData }
    }
}

impl<T: Pod> From<&[T]> for Buffer<T> {
    fn from(items: &[T]) -> Self {
        let mut buffer = Self::take(items.len());
        buffer.copy_from_slice(items);
        buffer
    }
}

impl<T: Pod> From<Vec<T>> for Buffer<T> {
    fn from(items: Vec<T>) -> Self {
        Self::from(&items[..])
    }
}

impl<T: Pod> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        Self::from(&self[..])
    }
}

impl<T: Pod> FromIterator<T> for Buffer<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut items = items.into_iter();
        let mut buffer = Self::take(items.size_hint().0);
        let mut count = 0;
        loop {
            for (place, item) in buffer[count..].iter_mut().zip(&mut items) {
                *place = item;
                count += 1;
            }
            let Some(item) = items.next() else { break };
            let mut larger = Self::take((2 * count).max(LINE));
            larger[..count].copy_from_slice(&buffer);
            larger[count] = item;
            count += 1;
            buffer = larger;
        }
        buffer.truncate(count);
        buffer
    }
}

impl<'a, T: Pod> IntoIterator for &'a Buffer<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T: Pod> IntoIterator for &'a mut Buffer<T> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<T: Pod + PartialEq, U: AsRef<[T]> + ?Sized> PartialEq<U> for Buffer<T> {
    fn eq(&self, other: &U) -> bool {
        **self == *other.as_ref()
    }
}

/// Gives back the memory that no work uses at the moment; the next work takes it anew. For when a network has gone.
pub fn release_memory() {
    for lines in [0, LARGE] {
        let pieces = std::mem::take(&mut Free::of(lines).0);
        drop(pieces);
    }
}

/// Pieces of memory that nobody uses at the moment.
struct Free(Vec<Vec<Line>>);

impl Free {
    /// Those among which a piece of so many lines is.
    fn of(lines: usize) -> MutexGuard<'static, Self> {
        // A list of free memory is whole at any time.
        FREE[usize::from(lines >= LARGE)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest piece of at least `count` lines. Where there is none, the largest is given up for the new one
    /// that the caller will make, so there are never more pieces than were in use at the same time, and none is
    /// allocated any more when the sizes repeat.
    fn take(&mut self, count: usize) -> Option<Vec<Line>> {
        let Self(free) = self;
        let fits = (0..free.len()).filter(|&i| free[i].len() >= count).min_by_key(|&i| free[i].len());
        let largest = || (0..free.len()).max_by_key(|&i| free[i].len());
        let lines = fits.or_else(largest).map(|i| free.swap_remove(i));
        lines.filter(|lines| lines.len() >= count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes pieces of these sizes one after the other, then gives all back.
    fn frame(free: &mut Free, sizes: &[usize]) {
        let taken: Vec<_> = sizes.iter().map(|&count| free.take(count).unwrap_or_else(|| zeros(count))).collect();
        assert!(taken.iter().zip(sizes).all(|(lines, &count)| lines.len() >= count));
        free.0.extend(taken);
    }

    /// Where the free memory lies, and how much it is.
    fn pieces(free: &Free) -> Vec<(usize, usize)> {
        let mut all: Vec<_> = free.0.iter().map(|lines| (lines.as_ptr() as usize, lines.len())).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn repeated_work_takes_no_new_memory() {
        let mut free = Free(Vec::new());
        let both = |free: &mut Free| {
            frame(free, &[40, 900, 300]);
            frame(free, &[900, 7, 41]);
        };
        // Few frames settle which piece serves what.
        (0..5).for_each(|_| both(&mut free));
        let settled = pieces(&free);
        (0..20).for_each(|_| both(&mut free));
        assert_eq!(pieces(&free), settled);
        assert_eq!(settled.len(), 3, "no more pieces than are in use at once: {settled:?}");
    }

    #[test]
    fn growing_demands_replace_memory_instead_of_piling_it_up() {
        let mut free = Free(Vec::new());
        (1..100).for_each(|i| frame(&mut free, &[i]));
        assert_eq!(pieces(&free).iter().map(|f| f.1).collect::<Vec<_>>(), [99]);
    }

    #[test]
    fn a_buffer_is_a_slice_of_whatever_it_was_made_of() {
        let points: Buffer<[f32; 3]> = (0..1000_u16).filter(|i| i % 3 == 0).map(|i| [f32::from(i); 3]).collect();
        assert_eq!((points.len(), points[333]), (334, [999.0; 3]));
        assert_eq!(points.clone(), points);
        let mut bytes = Buffer::<u8>::from(&[1, 2, 3][..]);
        bytes.truncate(2);
        assert_eq!(bytes, [1, 2]);
        assert_eq!(Buffer::<u64>::zeroed(9), vec![0; 9]);
        assert!(Buffer::<f32>::take(0).is_empty() && Buffer::<u32>::from_iter([]).is_empty());
    }
}
