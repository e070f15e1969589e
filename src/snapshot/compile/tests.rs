//! What becomes of objects, good and bad.
