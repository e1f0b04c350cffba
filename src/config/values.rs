//! What single values look like: addresses, URLs, sizes, durations, networks.
//!
//! Not for: relations between values (`checks`).
//! Called by: `sections`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::settings::{ErrorChannel, LogFormat, ReferencesUpstream, Route};
use crate::digest::InstanceName;
use crate::net::{AddrError, ListenAddr};
use crate::store::Condition;
use crate::upstream::{Endpoint, EndpointError};

pub(super) fn upstream_url(text: &str) -> Result<Endpoint, String> {
    text.parse()
        .map_err(|error: EndpointError| error.to_string())
}

/// A URL, or the word for the embedded cache.
pub(super) fn references_upstream(text: &str) -> Result<ReferencesUpstream, String> {
    match text {
        "embedded" => Ok(ReferencesUpstream::Embedded),
        url => upstream_url(url)
            .map(ReferencesUpstream::Url)
            .map_err(|error| format!("{error}; or write `embedded`")),
    }
}

/// Subsets double with each qualifier: 6 are 63 further entries a URI.
pub(super) fn subset_max(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (0..=6).contains(n));
    number.ok_or_else(|| format!("`{text}` is not a number from 0 to 6"))
}

/// `NAME+NAME`.
pub(super) fn projection(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split('+').map(str::to_owned).collect();
    let bad = |name: &String| name.is_empty() || name.contains(|c: char| c.is_ascii_control());
    if names.iter().any(bad) {
        return Err(format!(
            "`{text}` is not NAME or NAME+NAME, as in `resource_type+vcs.commit`"
        ));
    }
    Ok(names)
}

/// `NAME=VALUE`.
pub(super) fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!(
            "`{text}` is not NAME=VALUE, as in `OSFamily=Linux`"
        )),
    }
}

/// `SERVICE=URL`.
pub(super) fn route(text: &str) -> Result<Route, String> {
    let form =
        "write SERVICE=URL, as in build.bazel.remote.execution.v2.Execution=grpc://HOST:PORT";
    let (service, url) = text.split_once('=').ok_or(form)?;
    let name = |c: char| c.is_ascii_alphanumeric() || "._".contains(c);
    if service.is_empty() || !service.chars().all(name) {
        return Err(format!(
            "what stands before `=` is no name of a service; {form}"
        ));
    }
    Ok(Route {
        service: service.to_owned(),
        url: upstream_url(url)?,
    })
}

pub(super) fn address(text: &str) -> Result<ListenAddr, String> {
    text.parse().map_err(|error: AddrError| error.to_string())
}

/// What has a form of its own.
pub(super) fn parsed<T: std::str::FromStr<Err = String>>(text: &str) -> Result<T, String> {
    text.parse()
}

/// `off` is no address.
pub(super) fn admin_address(text: &str) -> Result<Option<ListenAddr>, String> {
    match text {
        "off" => Ok(None),
        _ if text.starts_with("unix:") => {
            Err("the admin pages are plain HTTP: HOST:PORT, or `off`".to_owned())
        }
        _ => address(text).map(Some),
    }
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    // Not echoed: this may be the key itself.
    if text.contains(['\n', '\0']) || text.contains("-----BEGIN") {
        return Err("is the path of a file, not what the file holds".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// `HOST` or `HOST:PORT`, for `:authority`.
pub(super) fn authority_header(text: &str) -> Result<String, String> {
    text.parse::<http::uri::Authority>()
        .ok()
        .filter(|parsed| !parsed.as_str().contains('@'))
        .map(|parsed| parsed.to_string())
        .ok_or_else(|| format!("`{text}` is not HOST or HOST:PORT"))
}

pub(super) fn server_name(text: &str) -> Result<String, String> {
    rustls_pki_types::ServerName::try_from(text)
        .map(|_| text.to_owned())
        .map_err(|_| format!("`{text}` is not a host name or address"))
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    match text.parse::<bytesize::ByteSize>() {
        Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
        Ok(_) => Err("must be more than nothing".to_owned()),
        Err(_) => Err(format!(
            "`{text}` is not a size; write it as in `10GiB` or `500MB`"
        )),
    }
}

pub(super) fn size_from_1_mib(text: &str) -> Result<u64, String> {
    match size(text) {
        Ok(size) if size < 1 << 20 => Err("must be at least 1MiB".to_owned()),
        other => other,
    }
}

pub(super) fn received_memory(text: &str) -> Result<u64, String> {
    match size(text) {
        Ok(size) if size < crate::budget::LEAST => Err(format!(
            "must be at least {}MiB: one full message and some",
            crate::budget::LEAST >> 20
        )),
        other => other,
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is not a duration; write it as in `90s` or `10m`"))
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|value| {
        if value.is_zero() {
            Err("must be more than nothing".to_owned())
        } else {
            Ok(value)
        }
    })
}

/// A network; an address alone is a network of one.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map(|network| network.trunc())
        .map_err(|_| format!("`{text}` is not a network; write it as in `10.0.0.0/8`"))
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse::<NonZeroUsize>()
        .map(usize::from)
        .map_err(|_| format!("`{text}` is not a whole number above 0"))
}

/// Requests that may fail.
pub(super) fn attempts(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|n| (1..=100).contains(n));
    number.ok_or_else(|| format!("`{text}` is not a number from 1 to 100"))
}

/// A connection costs a socket and its buffers at both ends.
pub(super) fn upstream_connections(text: &str) -> Result<usize, String> {
    match count(text) {
        Ok(connections) if connections > 10_000 => Err("must be at most 10000".to_owned()),
        other => other,
    }
}

pub(super) fn truth(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{text}` is neither `true` nor `false`")),
    }
}

/// Permissions of a file, as `chmod` takes them: three octal digits, or four
/// of which the first is 0. Of a number that begins with 0, which TOML has not,
/// nothing is left.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix('0').unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).ok();
    mode.filter(|_| digits.len() == 3)
        .ok_or_else(|| match text {
            "" => "write the mode as text, as in \"0660\"".to_owned(),
            _ => format!(
                "`{text}` is not a mode of three octal digits: write it as text, as in \"0660\""
            ),
        })
}

/// A name: no spaces or control characters.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.len() > 255 || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("is at most 255 bytes, without spaces or control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// `""` is the empty name: in a flag or a variable it could not be seen.
pub(super) fn instance_name(text: &str) -> Result<InstanceName, String> {
    let name = if text == "\"\"" { "" } else { text };
    InstanceName::new(name).map_err(|error| format!("`{text}`: {error}"))
}

/// What `probe.require` may hold.
pub(super) fn condition(text: &str) -> Result<Condition, String> {
    let names: Vec<String> = Condition::ALL.map(|c| format!("`{}`", c.name())).into();
    let found = Condition::ALL.into_iter().find(|c| c.name() == text);
    found.ok_or_else(|| format!("`{text}` is none of {}", names.join(", ")))
}

/// Whether something that is decided case by case may happen at all.
pub(super) fn automatic(text: &str) -> Result<bool, String> {
    match text {
        "auto" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{text}` is none of `auto`, `off`")),
    }
}

pub(super) fn error_channel(text: &str) -> Result<ErrorChannel, String> {
    match text {
        "auto" => Ok(ErrorChannel::Auto),
        "inline" => Ok(ErrorChannel::Inline),
        "grpc" => Ok(ErrorChannel::Grpc),
        _ => Err(format!("`{text}` is none of `auto`, `inline`, `grpc`")),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("`{text}` is none of `auto`, `text`, `json`")),
    }
}

pub(super) fn log_level(text: &str) -> Result<String, String> {
    match text {
        "error" | "warn" | "info" | "debug" | "trace" => Ok(text.to_owned()),
        _ => Err(format!(
            "`{text}` is none of `error`, `warn`, `info`, `debug`, `trace`"
        )),
    }
}

#[cfg(test)]
mod tests;
