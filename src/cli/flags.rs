//! The flags that stand for settings, made from the table of keys, so that
//! there is no flag without a key and no help text that differs from it.
//!
//! Not for: flags that are not settings (`--config`, `--port-file`).
//! Called by: `cli`.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{KEYS, Key};

/// The flags that were given: the key each stands for, and its values as they
/// were written. `config` parses them, so that mistakes in flags are reported
/// together with all others.
#[derive(Debug, Default)]
pub(super) struct Flags(pub(super) Vec<(&'static str, Vec<String>)>);

fn with_flag() -> impl Iterator<Item = (&'static Key, &'static str)> {
    KEYS.iter()
        .filter_map(|key| Some((key, key.flag.strip_prefix("--")?)))
}

fn argument(key: &'static Key, flag: &'static str) -> Arg {
    let default = match key.default {
        "" => String::new(),
        _ if key.default.starts_with('<') => String::new(),
        default => format!(" [default: {default}]"),
    };
    let many = if key.list { "; may be given again" } else { "" };
    Arg::new(key.name)
        .long(flag)
        .value_name(placeholder(key.name))
        .help(format!("{}{many}{default}", key.about))
        .action(if key.list {
            ArgAction::Append
        } else {
            ArgAction::Set
        })
}

fn placeholder(key: &str) -> &'static str {
    match key.rsplit('.').next().unwrap_or(key) {
        "address" | "authority" => "HOST:PORT",
        "url" => "URL",
        "dir" => "DIR",
        "cert" | "key" | "ca" | "client_ca" | "client_cert" | "client_key" | "rules" | "netrc" => {
            "FILE"
        }
        "credentials" => "HOST=FILE",
        "allow_cidr" | "deny_cidr" => "CIDR",
        "timeout" | "delay" | "interval" => "DURATION",
        "require" => "CONDITION",
        "route" => "SERVICE=URL",
        "max_size" => "SIZE",
        "threads" | "max_connections" => "NUMBER",
        _ => "NAME",
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(with_flag().map(|(key, flag)| argument(key, flag)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = with_flag().filter_map(|(key, _)| {
            let values = matches.get_many::<String>(key.name)?;
            Some((key.name, values.cloned().collect()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::super::{Cli, Command};

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_carry_their_key_and_every_value() {
        let cli = Cli::try_parse_from([
            "assetgate",
            "serve",
            "--upstream",
            "grpc://a:1",
            "--upstream=grpc://b:1",
            "--threads",
            "2",
        ])
        .unwrap();
        let Command::Serve { common, port_file } = cli.command else {
            panic!()
        };
        assert_eq!(port_file, None);
        assert_eq!(
            common.flags.0,
            [
                ("threads", vec!["2".to_owned()]),
                (
                    "upstream.url",
                    vec!["grpc://a:1".to_owned(), "grpc://b:1".to_owned()]
                ),
            ]
        );
    }

    #[test]
    fn every_promised_flag_is_there() {
        let mut command = Cli::command();
        let help = command
            .find_subcommand_mut("serve")
            .unwrap()
            .render_long_help()
            .to_string();
        for flag in [
            "config",
            "listen",
            "admin-listen",
            "upstream",
            "data-dir",
            "port-file",
            "origin-allow-cidr",
            "origin-ca",
            "origin-rules",
            "origin-netrc",
            "origin-credentials",
            "tls-cert",
            "tls-key",
            "tls-client-ca",
            "upstream-ca",
            "upstream-client-cert",
            "upstream-client-key",
            "upstream-server-name",
            "upstream-authority",
            "upstream-max-connections",
            "max-size",
            "errors",
            "log-format",
            "log-level",
            "threads",
            "max-connections",
            "drain-timeout",
            "probe-instance",
            "probe-interval",
            "require",
        ] {
            assert!(help.contains(&format!("--{flag} <")), "--{flag}");
        }
        assert!(help.contains("--drain-delay <DURATION>"), "{help}");
    }
}
