//! The `assetgate` command: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    assetgate::cli::main(assetgate::server::run)
}
