//! Model to snapshot: or every fault found.

/// Makes snapshots, and remembers between them what must stay the same.
#[derive(Debug, Default)]
pub struct Compiler {}
