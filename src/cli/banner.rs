//! What `serve` says when it begins to serve: where, in front of what, and the
//! lines to paste into clients.
//!
//! Not for: scripts (`port_file`).
//! Called by: `cli::serve`.

use std::fmt::Write as _;

use bytesize::ByteSize;

use crate::config::Config;

/// Text for people; `grpc` and `admin` are the addresses in fact bound.
#[must_use]
pub fn banner(config: &Config, grpc: &str, admin: Option<&str>) -> String {
    let tls = config.listen.tls.as_ref();
    let kind = match tls {
        None => "plain",
        Some(tls) if tls.client_ca.is_some() => "TLS, client certificates demanded",
        Some(_) => "TLS",
    };
    let mut out = format!("Assetgate {}\n", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(out, "  gRPC      {grpc} ({kind})");
    let _ = writeln!(out, "  upstream  {}", upstream(config));
    let _ = match admin {
        Some(admin) => writeln!(out, "  admin     http://{admin}/"),
        None => writeln!(out, "  admin     off"),
    };
    let _ = write!(out, "\nBazel, in .bazelrc:\n\n{}", bazel(config, grpc));
    if let Some(lines) = buildstream(config, grpc) {
        let _ = write!(out, "\nBuildStream, in buildstream.conf:\n\n{lines}");
    }
    out
}

/// The cache behind, in words.
pub(super) fn upstream(config: &Config) -> String {
    match &config.upstream {
        Some(upstream) => upstream
            .urls
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        None => format!(
            "none: the embedded cache in {}, at most {} (one machine, to try it out; \
             not for production)",
            config.embedded.dir.display(),
            ByteSize(config.embedded.max_size)
        ),
    }
}

/// The lines for `.bazelrc`.
pub(super) fn bazel(config: &Config, grpc: &str) -> String {
    let tls = config.listen.tls.as_ref();
    let address = reachable(grpc);
    let url = match grpc.starts_with("unix:") {
        true => address,
        false => format!(
            "{}://{address}",
            if tls.is_some() { "grpcs" } else { "grpc" }
        ),
    };
    let mut out =
        format!("build --remote_cache={url}\nbuild --experimental_remote_downloader={url}\n");
    if let Some(tls) = tls {
        out.push_str("# build --tls_certificate=CA.pem  (unless a public one issued ours)\n");
        if tls.client_ca.is_some() {
            out.push_str("build --tls_client_certificate=CLIENT.pem\n");
            out.push_str("build --tls_client_key=CLIENT.key\n");
        }
    }
    out
}

/// None for a unix socket: BuildStream wants a URL.
fn buildstream(config: &Config, grpc: &str) -> Option<String> {
    if grpc.starts_with("unix:") {
        return None;
    }
    let tls = config.listen.tls.as_ref();
    let url = format!(
        "{}://{}",
        if tls.is_some() { "https" } else { "http" },
        reachable(grpc)
    );
    let mut out = String::new();
    for section in ["artifacts", "source-caches"] {
        let _ = writeln!(
            out,
            "{section}:\n  servers:\n  - url: {url}\n    push: true"
        );
        if let Some(tls) = tls {
            out.push_str("    auth:\n      server-cert: CA.pem\n");
            if tls.client_ca.is_some() {
                out.push_str("      client-cert: CLIENT.pem\n      client-key: CLIENT.key\n");
            }
        }
    }
    Some(out)
}

/// "Any address" is none that a client can connect to.
fn reachable(grpc: &str) -> String {
    match grpc
        .strip_prefix("0.0.0.0:")
        .or_else(|| grpc.strip_prefix("[::]:"))
    {
        Some(port) => format!("localhost:{port}"),
        None => grpc.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ListenTls, Sources, load};

    fn config(flags: &[(&'static str, &str)]) -> Config {
        let sources = Sources {
            environment: vec![("HOME".to_owned(), "/h".to_owned())],
            flags: flags
                .iter()
                .map(|(key, value)| (*key, vec![(*value).to_owned()]))
                .collect(),
            ..Sources::default()
        };
        load(&sources).unwrap().config
    }

    #[test]
    fn in_front_of_a_cache_with_lines_to_paste() {
        let config = config(&[("upstream.url", "grpc://cache:9092")]);
        assert_eq!(
            banner(&config, "127.0.0.1:8980", Some("127.0.0.1:9980")),
            concat!(
                "Assetgate ",
                env!("CARGO_PKG_VERSION"),
                "\n",
                "  gRPC      127.0.0.1:8980 (plain)\n",
                "  upstream  grpc://cache:9092\n",
                "  admin     http://127.0.0.1:9980/\n",
                "\nBazel, in .bazelrc:\n\n",
                "build --remote_cache=grpc://127.0.0.1:8980\n",
                "build --experimental_remote_downloader=grpc://127.0.0.1:8980\n",
                "\nBuildStream, in buildstream.conf:\n\n",
                "artifacts:\n  servers:\n  - url: http://127.0.0.1:8980\n    push: true\n",
                "source-caches:\n  servers:\n  - url: http://127.0.0.1:8980\n    push: true\n",
            )
        );
    }

    #[test]
    fn the_embedded_cache_is_named_and_warned_of() {
        let text = banner(&config(&[]), "[::]:8980", None);
        assert!(
            text.contains("embedded cache in /h/.cache/assetgate, at most 10.0 GiB"),
            "{text}"
        );
        assert!(
            text.contains("not for production") && text.contains("admin     off"),
            "{text}"
        );
        assert!(
            text.contains("--remote_cache=grpc://localhost:8980\n"),
            "{text}"
        );
    }

    #[test]
    fn tls_and_unix_sockets_have_their_own_schemes() {
        let mut config = config(&[]);
        let text = banner(&config, "unix:/run/a", None);
        assert!(text.contains("--remote_cache=unix:/run/a\n"), "{text}");
        assert!(!text.contains("BuildStream"), "{text}");

        config.listen.tls = Some(ListenTls {
            client_ca: Some("/ca".into()),
            ..Default::default()
        });
        let text = banner(&config, "10.0.0.1:1", None);
        for line in [
            "(TLS, client certificates demanded)",
            "build --remote_cache=grpcs://10.0.0.1:1\n",
            "build --tls_client_certificate=CLIENT.pem\n",
            "- url: https://10.0.0.1:1\n",
            "      client-key: CLIENT.key\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
