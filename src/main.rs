//! The front door: command line in, exit code out; nothing else.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(ringway::cli::main(std::env::args_os()))
}
