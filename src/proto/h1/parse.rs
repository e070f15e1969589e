//! (placeholder until the parser lands)

/// Limits of a head.
#[derive(Clone, Debug)]
pub struct HeadLimits {
    pub head_bytes_max: usize,
    pub line_bytes_max: usize,
    pub headers_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { head_bytes_max: 32 * 1024, line_bytes_max: 8 * 1024, headers_max: 100 }
    }
}
