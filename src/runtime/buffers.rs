//! Buffers lent and returned. One stock a core, so no locks; the one returned last leaves first, being warm.
//!
//! Two sizes: small ones for heads coming from clients and going out, large ones for bodies and for what comes
//! from upstream. A lent buffer is empty; its capacity is what it was made with. The stock keeps a bounded
//! number, so a burst does not stay in memory for ever.

use std::cell::RefCell;

/// Bytes of a small buffer: a head and a small body.
pub const SMALL_BYTES: usize = 16 * 1024;
/// Small buffers kept in stock: at most 4 MiB a core.
pub const SMALL_KEPT: usize = 256;

/// The stock of one core.
#[derive(Debug)]
pub struct Buffers {
    small: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
    large_bytes: usize,
    large_kept: usize,
}

impl Buffers {
    /// An empty stock whose large buffers have so many bytes, and of which so many are kept.
    pub fn new(large_bytes: usize, large_kept: usize) -> Self {
        Self {
            small: RefCell::new(Vec::with_capacity(SMALL_KEPT)),
            large: RefCell::new(Vec::with_capacity(large_kept)),
            large_bytes: large_bytes.max(SMALL_BYTES * 2),
            large_kept,
        }
    }

    /// Lends a small buffer.
    pub fn small(&self) -> Vec<u8> {
        self.small.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(SMALL_BYTES))
    }

    /// Lends a large buffer.
    pub fn large(&self) -> Vec<u8> {
        self.large.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(self.large_bytes))
    }

    /// A large buffer in place of a small one, with what is in it; a large one stays.
    pub fn enlarge(&self, buffer: Vec<u8>) -> Vec<u8> {
        if buffer.capacity() >= self.large_bytes {
            return buffer;
        }
        let mut larger = self.large();
        larger.extend_from_slice(&buffer);
        self.give_back(buffer);
        larger
    }

    /// Takes a buffer back. One that has grown or shrunk to another size is dropped.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let (stock, kept) = if buffer.capacity() == self.large_bytes {
            (&self.large, self.large_kept)
        } else if buffer.capacity() == SMALL_BYTES {
            (&self.small, SMALL_KEPT)
        } else {
            return;
        };
        let mut stock = stock.borrow_mut();
        if stock.len() < kept {
            stock.push(buffer);
        }
    }

    /// Bytes of a large buffer.
    pub const fn large_bytes(&self) -> usize {
        self.large_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_buffer_is_lent_again_empty() {
        let buffers = Buffers::new(64 * 1024, 4);
        let mut buffer = buffers.small();
        buffer.extend_from_slice(b"secret of another");
        let at = buffer.as_ptr();
        buffers.give_back(buffer);
        let again = buffers.small();
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
    }

    #[test]
    fn enlarging_keeps_what_is_there_and_gives_the_small_one_back() {
        let buffers = Buffers::new(64 * 1024, 4);
        let mut buffer = buffers.small();
        buffer.extend_from_slice(b"said");
        let larger = buffers.enlarge(buffer);
        assert_eq!((larger.as_slice(), larger.capacity()), (b"said".as_slice(), buffers.large_bytes()));
        assert_eq!(buffers.small.borrow().len(), 1);
        let at = larger.as_ptr();
        let again = buffers.enlarge(larger);
        assert_eq!(again.as_ptr(), at);
    }

    #[test]
    fn a_buffer_that_grew_is_not_kept() {
        let buffers = Buffers::new(64 * 1024, 4);
        buffers.give_back(Vec::with_capacity(SMALL_BYTES + 1));
        assert_eq!(buffers.small.borrow().len(), 0);
    }
}
