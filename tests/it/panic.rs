//! A panic costs one connection and is counted; the core and its other connections go on.
//!
//! TODO: tell the story once a debug build has a way to make a request panic: the request gets a 500 or the end
//! of its connection, others on the same core are served on, `panics` in the metrics is 1.
