//! The documents say what there is: every setting, flag and metric, and nothing
//! else; and what they show as configuration is valid.
//!
//! Tables are found by their heading; the first cell of a row names the thing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use assetgate::config::{KEYS, Sources, load};
use assetgate::fetcher::UrlRules;
use assetgate::resolver::Missed;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The text between a heading and the next one of the same or a higher level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text
        .find(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("there is no heading `{heading}`"));
    let body = &text[start + heading.len() + 2..];
    let level = heading.bytes().take_while(|b| *b == b'#').count();
    let mut at = 0;
    for line in body.split_inclusive('\n') {
        let hashes = line.bytes().take_while(|b| *b == b'#').count();
        if (1..=level).contains(&hashes) {
            return &body[..at];
        }
        at += line.len();
    }
    body
}

/// The rows of the tables in a text, as cells without their backticks.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with('|'));
    lines
        .filter(|line| !line.starts_with("|---"))
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().trim_matches('`').to_owned())
                .collect()
        })
        .collect()
}

/// Everything that stands between single backticks, outside code blocks.
fn quoted(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// The contents of code blocks in one language, by the file they stand in.
fn blocks(language: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for path in documents() {
        let text = read(&path);
        let mut block: Option<String> = None;
        for line in text.lines() {
            match (&mut block, line.trim()) {
                (None, fence) if fence == format!("```{language}") => block = Some(String::new()),
                (Some(_), "```") => found.extend(block.take().map(|text| (path.clone(), text))),
                (Some(text), _) => {
                    text.push_str(line);
                    text.push('\n');
                }
                (None, _) => {}
            }
        }
        assert!(block.is_none(), "{}: a block is not closed", path.display());
    }
    found
}

fn documents() -> Vec<PathBuf> {
    let mut found = vec!["README.md".into(), "envoy/README.md".into()];
    found.push("tests/README.md".into());
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        found.push(Path::new("docs").join(entry.unwrap().file_name()));
    }
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let name = entry.unwrap().file_name();
        found.push(Path::new("examples").join(name).join("README.md"));
    }
    found
}

fn flags() -> BTreeSet<&'static str> {
    let of_settings = KEYS.iter().map(|key| key.flag).filter(|f| !f.is_empty());
    let of_commands = ["--config", "--port-file", "--metadata-file", "--json"];
    let of_explain = ["--uri", "--qualifier", "--instance", "--kind"];
    let further = ["--digest-function", "--oldest-content-accepted"];
    let others = of_commands.into_iter().chain(of_explain).chain(further);
    of_settings.chain(others).collect()
}

#[test]
fn every_setting_is_told_with_its_flag_and_default() {
    let rows = rows(&read("docs/settings.md"));
    let mut told: Vec<(&str, &str, &str)> = Vec::new();
    for row in rows.iter().filter(|row| row[0] != "key") {
        assert_eq!(row.len(), 4, "key, flag, default, meaning: {row:?}");
        told.push((&row[0], &row[1], &row[2]));
    }
    let mut expected: Vec<(&str, &str, &str)> = Vec::new();
    for key in KEYS {
        let default = match key.default {
            _ if key.name == "listen.max_connections_per_client" => "half of these",
            "<processors>" => "all processors",
            "<received>" => "256MiB, or an eighth of the control group's",
            "<cache>" => "your cache directory + /assetgate",
            text => text,
        };
        expected.push((key.name, key.flag, default));
    }
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
}

#[test]
fn rules_for_urls_are_rules() {
    let all = blocks("downloader-config");
    assert!(!all.is_empty());
    for (path, text) in all {
        let parsed = UrlRules::parse(&text);
        parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn every_setting_and_flag_that_is_named_exists() {
    let sections: BTreeSet<&str> = KEYS
        .iter()
        .flat_map(|key| key.name.match_indices('.').map(|(at, _)| &key.name[..at]))
        .collect();
    for path in documents() {
        for word in quoted(&read(&path)) {
            let first = word.split('.').next().unwrap_or_default();
            // `probe.py` is a file.
            let named = word.contains('.')
                && !word.ends_with(".py")
                && word
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b".__".contains(&b));
            if named && sections.contains(first) {
                let known = sections.contains(&*word) || KEYS.iter().any(|key| key.name == word);
                assert!(known, "{}: no setting is called {word}", path.display());
            }
        }
        for line in read(&path).lines() {
            let Some((_, arguments)) = line.split_once("serve ") else {
                continue;
            };
            let given = arguments.split(&[' ', '=', '`'][..]);
            for flag in given.filter(|word| word.starts_with("--") && word.len() > 2) {
                let known = flags().contains(flag);
                assert!(known, "{}: no flag is called {flag}", path.display());
            }
        }
    }
}

#[test]
fn every_toml_block_is_a_valid_configuration() {
    let blocks = blocks("toml");
    assert!(!blocks.is_empty(), "a configuration file is shown");
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in blocks {
        let file = directory.path().join("assetgate.toml");
        std::fs::write(&file, &text).unwrap();
        let sources = Sources {
            file: Some(file),
            environment: vec![("HOME".to_owned(), "/home/u".to_owned())],
            ..Sources::default()
        };
        if let Err(problems) = load(&sources) {
            panic!("{}:\n{text}\n{problems}", path.display());
        }
    }
}

#[test]
fn every_metric_is_told() {
    let operating = read("docs/operating.md");
    let rows = rows(section(&operating, "## Metrics"));
    let told: BTreeSet<&str> = rows
        .iter()
        .map(|row| &*row[0])
        .filter(|name| *name != "metric")
        .collect();
    let names = read("src/telemetry/names.rs");
    let is_name = |text: &&str| {
        let ours = text.starts_with("assetgate_") || text.starts_with("grpc_server_");
        let plain = |b: u8| b.is_ascii_lowercase() || b == b'_';
        ours && !text.ends_with('_') && text.bytes().all(plain)
    };
    let there: BTreeSet<&str> = names.split('"').filter(is_name).collect();
    assert!(there.len() > 20, "{there:?}");
    assert_eq!(told, there);
}

#[test]
fn every_reason_stands_in_the_documents_as_it_is_told() {
    let operating = read("docs/operating.md");
    let rows = rows(section(&operating, "## Explain"));
    let told: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    let names = Missed::ALL.map(Missed::name);
    assert_eq!(told, [&["reason"], &names[..]].concat());
    let metrics = section(&operating, "## Metrics");
    let row = metrics
        .lines()
        .find(|line| line.contains("`assetgate_lookups_total`"));
    for name in names {
        assert!(row.unwrap().contains(&format!("`{name}`")), "{name}");
    }
}
