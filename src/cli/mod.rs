//! The command line: `serve`, `fetch`, `doctor`, `explain`, `config check`, `config show`.
//!
//! Exit codes: 0; 1 when running failed, or the answer is no; 64 for bad usage or
//! configuration; 69 when the cache, or the server asked, cannot be reached.
//! Not for: what settings mean (`config`) or serving (`server`).
//! Called by: `main`.

mod banner;
mod doctor;
mod explain;
mod fetch;
mod flags;
mod port_file;
mod serve;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use banner::banner;
pub use port_file::write_port_file;
pub use serve::{Announce, Run};

use crate::asset::declare_secret_parameters;
use crate::config::{self, Loaded, Sources};
use crate::digest::InstanceName;

/// Bad usage or configuration, as in `sysexits.h`.
const USAGE: u8 = 64;

/// One gRPC address that gives a build cache you already run the Remote Asset API.
#[derive(Debug, Parser)]
#[command(name = "assetgate", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve, in front of a cache or with the embedded one
    Serve {
        #[command(flatten)]
        common: Common,
        /// Write the bound addresses here as JSON once it serves
        #[arg(long, value_name = "FILE")]
        port_file: Option<PathBuf>,
    },
    /// Have a server download something, and print its digest and the lines for Bazel
    Fetch(Box<fetch::Asked>),
    /// Find out whether references work in a cache, and what to do if not
    Doctor {
        #[command(flatten)]
        common: Common,
        /// Probe under this instance name, instead of probe.instances; may be given again
        #[arg(long = "instance", value_name = "NAME", value_parser = instance_name)]
        instances: Vec<InstanceName>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what a fetch would find in the cache, and why
    Explain {
        #[command(flatten)]
        asked: explain::Asked,
        #[command(flatten, next_help_heading = "Settings, as of the server")]
        common: Common,
    },
    /// Look at the configuration without serving
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say OK, or everything that is wrong
    Check(Common),
    /// Print the settings in force and where each came from
    Show(Common),
}

#[derive(Debug, Args)]
struct Common {
    /// TOML file with settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: flags::Flags,
}

impl Common {
    fn load(self) -> Result<Loaded, ExitCode> {
        let loaded = config::load(&Sources::of_process(self.config, self.flags.0));
        let loaded = loaded.map_err(|problems| {
            complain(&problems.to_string());
            ExitCode::from(USAGE)
        })?;
        declare_secret_parameters(&loaded.config.fetch.secret_parameters);
        Ok(loaded)
    }
}

/// Runs the command line of this process; `run` serves until told to stop.
pub fn main(run: Run) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    core_dumps(false);
    let done = match cli.command {
        Command::Serve { common, port_file } => common
            .load()
            .map(|loaded| serve::serve(loaded.config, port_file, run)),
        Command::Fetch(asked) => Ok(fetch::fetch(&asked)),
        Command::Doctor {
            common,
            instances,
            json,
        } => common
            .load()
            .map(|loaded| doctor::doctor(loaded.config, instances, json)),
        Command::Explain { asked, common } => common
            .load()
            .map(|loaded| explain::explain(&loaded.config, &asked)),
        Command::Config(ConfigCommand::Check(common)) => common.load().map(|loaded| {
            let exposed = config::exposed_files(&loaded.config);
            for warning in config::warnings(&loaded.config).iter().chain(&exposed) {
                complain(&format!("warning: {warning}"));
            }
            say("OK\n")
        }),
        Command::Config(ConfigCommand::Show(common)) => {
            common.load().map(|loaded| say(&loaded.show()))
        }
    };
    done.unwrap_or_else(|code| code)
}

fn instance_name(text: &str) -> Result<InstanceName, String> {
    InstanceName::new(text).map_err(|error| error.to_string())
}

/// To standard output; a reader that went away is a failure of the command.
fn say(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// To standard error; when that is gone there is nobody left to tell.
/// A core dump would hold every secret of the process. What forbidding it also
/// takes from other processes of the user: to trace this one, and to look into
/// its memory (`PR_SET_DUMPABLE` in `prctl(2)`).
fn core_dumps(allowed: bool) {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    let behavior = match allowed {
        true => DumpableBehavior::Dumpable,
        false => DumpableBehavior::NotDumpable,
    };
    // There is no log yet, and a kernel without it is no reason not to serve.
    let _ = set_dumpable_behavior(behavior);
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
