//! Tests of compression.
