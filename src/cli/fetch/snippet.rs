//! What stands in a Bazel file for something that was fetched.
//!
//! Called by: `report`.

use std::fmt::Write as _;

/// What `http_archive` unpacks, longest first where one ends in another.
/// Jars and wheels are left out: they are used as they are.
const ARCHIVES: [&str; 12] = [
    ".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2", ".tgz", ".txz", ".tzst", ".tbz", ".tar", ".zip",
    ".deb", ".7z",
];

/// Names that say nothing, where forges put the version into the last part of
/// a path.
const PATHS: [&str; 5] = ["archive", "refs", "tags", "heads", "-"];

/// A rule for the file at `urls`, with the line that loads it.
pub(super) fn rule(urls: &[String], integrity: &str, canonical_id: Option<&str>) -> String {
    let first = urls.first().map_or("", String::as_str);
    let file = file_name(first);
    let rule = match archive(file) {
        Some(_) => "http_archive",
        None => "http_file",
    };
    let mut out = format!("load(\"@bazel_tools//tools/build_defs/repo:http.bzl\", \"{rule}\")\n\n");
    let _ = writeln!(out, "{rule}(");
    let _ = writeln!(out, "    name = {},", quoted(&name(first)));
    if rule == "http_file" && !file.is_empty() {
        let _ = writeln!(out, "    downloaded_file_path = {},", quoted(file));
    }
    let _ = writeln!(out, "    integrity = {},", quoted(integrity));
    if let Some(id) = canonical_id {
        let _ = writeln!(out, "    canonical_id = {},", quoted(id));
    }
    let _ = writeln!(out, "    urls = [");
    for url in urls {
        let _ = writeln!(out, "        {},", quoted(url));
    }
    out.push_str("    ],\n)\n");
    out
}

/// The path of a URL, in parts.
fn parts(url: &str) -> Vec<&str> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    // The first is the host.
    path.split('/').skip(1).filter(|p| !p.is_empty()).collect()
}

fn file_name(url: &str) -> &str {
    let last = parts(url).last().copied().unwrap_or_default();
    // As a name of a file it must be one.
    match last {
        "." | ".." => "",
        name => name,
    }
}

/// A name without what says that it is an archive, if it is one.
fn archive(file: &str) -> Option<&str> {
    let lower = file.to_ascii_lowercase();
    let end = ARCHIVES.iter().find(|end| lower.ends_with(**end))?;
    file.get(..file.len() - end.len())
}

/// What a repository of it could be called.
fn name(url: &str) -> String {
    let file = file_name(url);
    let stem = match archive(file) {
        Some(stem) => stem,
        None => file.rsplit_once('.').map_or(file, |(stem, _)| stem),
    };
    let own = without_version(stem);
    let named = match own.is_empty() {
        false => own,
        // Only a version: `https://forge/owner/NAME/archive/v1.2.tar.gz`.
        true => {
            let parts = parts(url);
            let telling = |part: &&&str| {
                !PATHS.contains(*part) && !without_version(part).is_empty() && **part != file
            };
            parts.iter().rev().find(telling).copied().unwrap_or(own)
        }
    };
    legal(named)
}

/// `rules_go` of `rules_go-v0.41.0`; nothing of `v1.2.3`.
fn without_version(stem: &str) -> &str {
    let is_version = |text: &str| {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let ends = rest.is_empty() || rest.starts_with(['.', '-', '_', '+']);
        ends && rest.len() < text.len()
    };
    if is_version(stem) {
        return "";
    }
    let cut = stem.match_indices(['-', '_']);
    let cut = cut.map(|(at, _)| at).find(|at| is_version(&stem[at + 1..]));
    &stem[..cut.unwrap_or(stem.len())]
}

/// What Bazel takes as a name: letters, digits, `_`, a letter first.
fn legal(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(64) {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => out.push(c),
            _ if out.ends_with('_') => {}
            _ => out.push('_'),
        }
    }
    let out = out.trim_matches('_');
    match out.bytes().next() {
        None => "download".to_owned(),
        Some(b) if b.is_ascii_alphabetic() => out.to_owned(),
        Some(_) => format!("download_{out}"),
    }
}

/// A Starlark string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            // Octal is all that every Starlark reads.
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\{:03o}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_what_the_url_says() {
        for (url, want) in [
            ("https://h/a/rules_go-v0.41.0.zip", "rules_go"),
            ("https://h/zlib-1.3.1.tar.gz", "zlib"),
            ("https://h/bazel-skylib-1.5.0.tar.gz?x=1#f", "bazel_skylib"),
            ("https://forge/owner/name/archive/v1.2.3.tar.gz", "name"),
            ("https://forge/owner/name/archive/refs/tags/1.2.zip", "name"),
            ("https://forge/o/n.js/-/archive/v1/n.js-v1.tar.bz2", "n_js"),
            ("https://h/tool_2.0_linux.deb", "tool"),
            ("https://h/7zip.tar", "download_7zip"),
            ("https://h/Grüße.txt", "gr_e"),
            ("https://h/", "download"),
            ("https://h", "download"),
            ("https://h/..", "download"),
            ("https://h/1/2/3.tgz", "download"),
            ("urn:x", "download"),
            ("https://h/lib.jar", "lib"),
        ] {
            assert_eq!(name(url), want, "{url}");
        }
    }

    #[test]
    fn an_archive_with_mirrors() {
        let urls = ["https://h/a/lib-1.0.tar.gz", "https://m/lib-1.0.tar.gz?a=b"];
        let rule = rule(&urls.map(str::to_owned), "sha256-abc=", Some("i\"d"));
        let want = r#"load("@bazel_tools//tools/build_defs/repo:http.bzl", "http_archive")

http_archive(
    name = "lib",
    integrity = "sha256-abc=",
    canonical_id = "i\"d",
    urls = [
        "https://h/a/lib-1.0.tar.gz",
        "https://m/lib-1.0.tar.gz?a=b",
    ],
)
"#;
        assert_eq!(rule, want);
    }

    #[test]
    fn a_file_and_what_has_to_be_escaped() {
        let rule = rule(&["https://h/a\"b\\\n.jar".to_owned()], "sha256-abc=", None);
        let want = r#"load("@bazel_tools//tools/build_defs/repo:http.bzl", "http_file")

http_file(
    name = "a_b",
    downloaded_file_path = "a\"b\\\012.jar",
    integrity = "sha256-abc=",
    urls = [
        "https://h/a\"b\\\012.jar",
    ],
)
"#;
        assert_eq!(rule, want);
    }
}
