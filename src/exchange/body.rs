//! Bodies: what a plugin may see of one.

/// The body of a request.
#[derive(Debug, Default)]
pub enum Body {
    /// There is none.
    #[default]
    Empty,
    /// All of it, because a plugin asked for it.
    Held(Vec<u8>),
    /// It passes by without being kept.
    Flowing,
}

/// A piece of a response body on its way through `BODY_FILTER`.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// The filter changes it in place; empty is allowed.
    pub bytes: &'a mut Vec<u8>,
    /// Whether nothing follows.
    pub last: bool,
}
