//! Runs one script of calls over the forward path, for counting instructions.
//!
//!     forward-instructions SCRIPT
//!
//! `tests/instructions.sh` runs it under valgrind, which counts inside
//! [`measured`] only. Metrics and logs are set up as in the product.
//!
//! Not for: time (`benches/forward.rs`).

use std::process::ExitCode;

use assetgate::telemetry::{LogSettings, Metrics, init_log};

#[path = "../canned/mod.rs"]
mod canned;

use canned::{Call, Proxy};

const MIB: usize = 1024 * 1024;
const FIND: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";
const READ: &str = "/google.bytestream.ByteStream/Read";
const WRITE: &str = "/google.bytestream.ByteStream/Write";

/// What is counted: `count` calls, `at_once` at a time.
struct Script {
    name: &'static str,
    call: Call,
    count: usize,
    at_once: usize,
}

const fn script(name: &'static str, path: &'static str, sizes: [usize; 3]) -> Script {
    let [request, response, frame] = sizes;
    Script {
        name,
        call: Call {
            path,
            request,
            response,
            frame,
        },
        count: 4,
        at_once: 1,
    }
}

const SCRIPTS: [Script; 7] = [
    Script {
        count: 400,
        at_once: 10,
        ..script("unary", FIND, [100, 1024, 16 * 1024])
    },
    Script {
        count: 200,
        ..script("unary_one_at_a_time", FIND, [100, 1024, 16 * 1024])
    },
    Script {
        count: 100,
        at_once: 10,
        ..script("find_missing_50k", FIND, [50_000, 50, 16 * 1024])
    },
    script("read_8m_small_frames", READ, [100, 8 * MIB, 16 * 1024]),
    script("read_8m_large_frames", READ, [100, 8 * MIB, 64 * 1024 + 5]),
    script("write_8m_small_frames", WRITE, [8 * MIB, 10, 16 * 1024]),
    script("write_8m_large_frames", WRITE, [8 * MIB, 10, 64 * 1024 + 5]),
];

/// Valgrind counts in here, and looks for the name.
#[inline(never)]
fn measured(proxy: &Proxy, script: &Script) -> Result<(), String> {
    proxy.run(script.count, script.at_once)
}

fn run(name: &str) -> Result<(), String> {
    let names: Vec<&str> = SCRIPTS.iter().map(|script| script.name).collect();
    let script = SCRIPTS.iter().find(|script| script.name == name);
    let script = script.ok_or_else(|| format!("no script `{name}`; there are: {names:?}"))?;
    Metrics::install().map_err(|error| error.to_string())?;
    let _flush = init_log(&LogSettings {
        json: Some(true),
        level: "info".to_owned(),
        directives: None,
    })
    .map_err(|error| error.to_string())?;
    let proxy = Proxy::new(script.call)?;
    // Buffers grow to their size.
    proxy.run(script.at_once * 2, script.at_once)?;
    measured(&proxy, script)
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the script reads them"
)]
fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    if name == "list" {
        for script in &SCRIPTS {
            println!("{} {}", script.name, script.count);
        }
        return ExitCode::SUCCESS;
    }
    match run(&name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
