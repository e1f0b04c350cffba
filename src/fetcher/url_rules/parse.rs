//! A file of rules, line by line.
//!
//! Called by: `url_rules`.

use std::fmt;
use std::io::Read as _;
use std::path::Path;

use super::UrlRules;
use super::rewrite::Rewrite;
use crate::fetcher::host;

/// Of a file, a line that counts, and the lines that do.
const MAX_BYTES: u64 = 1 << 20;
const MAX_LINE: usize = 4 << 10;
const MAX_REWRITES: usize = 1000;
const MAX_HOSTS: usize = 50_000;
/// The message goes into a header of the answer.
const MAX_MESSAGE: usize = 1000;
/// Mistakes that are told.
const MAX_TOLD: usize = 20;

/// Why a file cannot be used as rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// It cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    /// It holds too much.
    #[error("the file is larger than 1 MiB")]
    TooLarge,
    /// It is no text.
    #[error("the file is not UTF-8 text")]
    NotText,
    /// Lines that cannot be used.
    #[error("{}", Listed(.0))]
    Lines(Vec<Problem>),
    /// Who may use this service's credentials is checked when it starts.
    #[error(
        "its rules hold user info, and those the service started with did not: restart it, so \
         that it is checked whom it would lend that to"
    )]
    NewCredentials,
}

/// What is wrong with one line. Quotes nothing of it, as a substitution may
/// hold a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { line, why }) in self.0.iter().take(MAX_TOLD).enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(f, "{separator}line {line} {why}")?;
        }
        match self.0.len().saturating_sub(MAX_TOLD) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

pub(super) fn read(path: &Path) -> Result<UrlRules, RulesError> {
    let unreadable = |error: std::io::Error| RulesError::Unreadable(error.to_string());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    let mut some = file.take(MAX_BYTES + 1);
    some.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(RulesError::TooLarge);
    }
    let text = String::from_utf8(bytes).map_err(|_| RulesError::NotText)?;
    parse(&text)
}

pub(super) fn parse(text: &str) -> Result<UrlRules, RulesError> {
    let mut rules = UrlRules::default();
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if let Err(why) = take_in(&mut rules, number, line.trim()) {
            problems.push(Problem { line: number, why });
        }
    }
    match problems.is_empty() {
        true => Ok(rules),
        false => Err(RulesError::Lines(problems)),
    }
}

fn take_in(rules: &mut UrlRules, number: usize, line: &str) -> Result<(), String> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    if line.len() > MAX_LINE {
        return Err(format!("is longer than {MAX_LINE} bytes"));
    }
    let mut words = line.split_whitespace();
    let directive = words.next().unwrap_or("");
    let rest: Vec<&str> = words.collect();
    match (directive, &*rest) {
        ("rewrite", [_, _]) if rules.rewrites.len() >= MAX_REWRITES => {
            return Err(format!("is one more than {MAX_REWRITES} `rewrite` lines"));
        }
        ("rewrite", [pattern, substitution]) => {
            let rewrite = Rewrite::new(number, pattern, substitution)?;
            rules.rewrites.push(rewrite);
        }
        ("rewrite", _) => return Err("is not of the form `rewrite PATTERN SUBSTITUTION`".into()),
        ("block", ["*"]) => rules.block_all = true,
        // Bazel takes it for a host of that name, which no URL has.
        ("allow", ["*"]) => {}
        ("allow" | "block", [_]) if rules.allow.len() + rules.block.len() >= MAX_HOSTS => {
            return Err(format!("names one more than {MAX_HOSTS} hosts"));
        }
        ("allow", [name]) => drop(rules.allow.insert(host_of(name)?)),
        ("block", [name]) => drop(rules.block.insert(host_of(name)?)),
        ("allow" | "block", _) => return Err(format!("is not of the form `{directive} HOST`")),
        ("all_blocked_message", []) => return Err("has no message".into()),
        ("all_blocked_message", _) if rules.message.is_some() => {
            return Err("is the second `all_blocked_message`; only one is possible".into());
        }
        ("all_blocked_message", _) => {
            let message = line.strip_prefix(directive).unwrap_or(line).trim();
            rules.message = Some(message_of(message)?);
        }
        _ => {
            return Err("begins with none of `rewrite`, `allow`, `block`, \
                        `all_blocked_message` and `#`"
                .into());
        }
    }
    Ok(())
}

fn message_of(text: &str) -> Result<String, String> {
    if text.len() > MAX_MESSAGE {
        return Err(format!("has a message of more than {MAX_MESSAGE} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("has control characters in its message".to_owned());
    }
    Ok(text.to_owned())
}

/// In Bazel the line would be one that never matches.
fn host_of(text: &str) -> Result<String, String> {
    if text.starts_with("*.") {
        return Err("begins its host with `*.`: hosts below it are meant anyway".to_owned());
    }
    let host = host::normal(text).filter(|_| !text.contains('*'));
    host.ok_or_else(|| {
        "does not name a host: a name or an address, without scheme, port and path".to_owned()
    })
}
