//! The binary.

use zeroizing_alloc::ZeroAlloc;

/// Zeroes what is freed: bodies, tokens and plaintexts pass through buffers of libraries that know nothing of secrets.
#[global_allocator]
static MEMORY: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

fn main() -> std::process::ExitCode {
    signet::cli::main()
}
