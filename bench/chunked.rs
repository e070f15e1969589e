//! Chunked bodies, there and back: what a byte of a streamed response costs beside its copies.

mod kit;

use std::process::ExitCode;

use kit::{Case, Scale, Work};
use ringway::proto::h1::chunked::{Decoder, LAST_CHUNK, write_size};

fn encode(out: &mut Vec<u8>, data: &[u8], chunk: usize) {
    for piece in data.chunks(chunk) {
        write_size(out, piece.len());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(LAST_CHUNK);
}

fn body(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| b'a' + (at % 26) as u8).collect()
}

/// The most that is copied at once before each round. Larger copies are one repeated instruction on some processors,
/// which callgrind counts once a byte.
const COPY_BYTES: usize = 1024;

/// Takes a body apart. It is moved about in place, so each round begins with a copy.
fn decoding(bytes: usize, chunk: usize) -> Work {
    let mut wire = Vec::new();
    encode(&mut wire, &body(bytes), chunk);
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; wire.len()];
    let mut work = move || {
        decoder.reset();
        for (to, from) in buffer.chunks_mut(COPY_BYTES).zip(wire.chunks(COPY_BYTES)) {
            to.copy_from_slice(from);
        }
        decoder.decode(&mut buffer).map_or(0, |step| if step.done { step.data as u64 } else { 0 })
    };
    assert_eq!(work(), bytes as u64);
    Box::new(work)
}

fn encoding(bytes: usize, chunk: usize) -> Work {
    let data = body(bytes);
    let mut out = Vec::new();
    let mut work = move || {
        out.clear();
        encode(&mut out, &data, chunk);
        out.len() as u64
    };
    assert!(work() > bytes as u64);
    Box::new(work)
}

fn bytes(scale: Scale) -> usize {
    scale.pick(64, 16 * 1024)
}

fn main() -> ExitCode {
    kit::run(&[
        Case { name: "decode-16k-in-1k-chunks", iterations: 500, make: |scale| decoding(bytes(scale), 1024) },
        Case {
            name: "decode-16k-in-16-byte-chunks",
            iterations: 50,
            make: |scale| decoding(bytes(scale), 16),
        },
        Case { name: "encode-16k-in-1k-chunks", iterations: 500, make: |scale| encoding(bytes(scale), 1024) },
    ])
}
