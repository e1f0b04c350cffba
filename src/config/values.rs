//! What single values look like: addresses, URLs, sizes, durations, networks.
//!
//! Not for: relations between values (`checks`).
//! Called by: `sections`.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::settings::{Address, ErrorChannel, LogFormat};

/// A cache to forward to, as `grpc://HOST:PORT`, `grpcs://HOST:PORT` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamUrl {
    /// Plain HTTP/2.
    Plain(String),
    /// HTTP/2 over TLS.
    Tls(String),
    /// A unix socket, plain.
    Unix(PathBuf),
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(authority) => write!(f, "grpc://{authority}"),
            Self::Tls(authority) => write!(f, "grpcs://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

const SCHEMES: &str = "begin with `grpc://` (plain), `grpcs://` (TLS) or `unix:` (a socket's path)";

pub(super) fn upstream_url(text: &str) -> Result<UpstreamUrl, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket_path(path).map(UpstreamUrl::Unix);
    }
    if let Some(rest) = text.strip_prefix("grpc://") {
        return authority(rest, 80).map(UpstreamUrl::Plain);
    }
    if let Some(rest) = text.strip_prefix("grpcs://") {
        return authority(rest, 443).map(UpstreamUrl::Tls);
    }
    let host = text.rsplit('@').next().unwrap_or(text);
    Err(match host.split_once("://") {
        Some((scheme, _)) if host == text => {
            format!("`{scheme}://` is not a way to reach a cache; {SCHEMES}")
        }
        _ if host == text => format!("`{text}` has no scheme: a URL must {SCHEMES}"),
        _ => format!("a URL must {SCHEMES}"),
    })
}

/// `HOST[:PORT]`, with the port Bazel would take when there is none.
fn authority(text: &str, default_port: u16) -> Result<String, String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.contains('@') {
        return Err("a URL must not hold a user or password; these are visible to all".to_owned());
    }
    let bare = text.find(['/', '?', '#']).and_then(|at| text.get(..at));
    if let Some(bare) = bare {
        return Err(format!("a URL ends after the port, as in `{bare}`"));
    }
    let after_host = text.rsplit(']').next().unwrap_or(text);
    if after_host.contains(':') {
        host_port(text).map(|(host, port)| join(&host, port))
    } else {
        host_port(&format!("{text}:{default_port}")).map(|(host, port)| join(&host, port))
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Splits `HOST:PORT`; an IPv6 address stands in brackets and loses them.
fn host_port(text: &str) -> Result<(String, u16), String> {
    let wrong = |what: &str| Err(format!("`{text}` {what}; write HOST:PORT"));
    let Some((host, port)) = text.rsplit_once(':') else {
        return wrong("has no port");
    };
    let Ok(port) = port.parse::<u16>() else {
        return wrong("has a port that is not a number up to 65535");
    };
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    match bracketed {
        Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => Ok((inner.to_owned(), port)),
        Some(_) => wrong("has no IPv6 address in its brackets"),
        None if host.is_empty() => wrong("has no host"),
        None if host.contains(':') => wrong("has an IPv6 address without brackets"),
        None if !host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) =>
        {
            wrong("has a host that is neither a name nor an address")
        }
        None => Ok((host.to_owned(), port)),
    }
}

fn socket_path(text: &str) -> Result<PathBuf, String> {
    // `unix:///p` and `unix:/p` are the same to Bazel.
    let path = text.strip_prefix("//").unwrap_or(text);
    if path.is_empty() {
        return Err("`unix:` must be followed by the path of a socket".to_owned());
    }
    // sun_path of the smaller system, less the final NUL.
    if path.len() > 103 {
        return Err(format!(
            "a socket's path may have 103 bytes, this has {}",
            path.len()
        ));
    }
    Ok(PathBuf::from(path))
}

pub(super) fn address(text: &str) -> Result<Address, String> {
    match text.strip_prefix("unix:") {
        Some(path) => socket_path(path).map(Address::Unix),
        None => host_port(text).map(|(host, port)| Address::Tcp { host, port }),
    }
}

/// `off` is no address.
pub(super) fn admin_address(text: &str) -> Result<Option<Address>, String> {
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

pub(super) fn truth(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{text}` is neither `true` nor `false`")),
    }
}

/// A name: no spaces or control characters.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.len() > 255 || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("is at most 255 bytes, without spaces or control characters".to_owned());
    }
    Ok(text.to_owned())
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
