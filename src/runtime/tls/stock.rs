//! Buffers of TLS, lent and returned: what was received and not yet decrypted, and what is encrypted and not yet sent.
//! One stock a core. A connection that rests has none of them.

use std::cell::RefCell;

/// Bytes of one: two of the longest records there may be (RFC 5246 6.2.3).
pub(super) const BYTES: usize = 2 * ((1 << 14) + 2048 + 5);
/// Kept in stock: at most 2.3 MiB a core.
const KEPT: usize = 64;

/// The stock of one core.
#[derive(Debug, Default)]
pub struct Stock(RefCell<Vec<Vec<u8>>>);

impl Stock {
    /// Lends a buffer, empty.
    pub(super) fn lend(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(BYTES))
    }

    /// Takes one back. What is no longer of the size it had is dropped.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        let mut stock = self.0.borrow_mut();
        if buffer.capacity() == BYTES && stock.len() < KEPT {
            buffer.clear();
            stock.push(buffer);
        }
    }
}
