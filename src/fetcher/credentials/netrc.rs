//! `netrc`: machine, login and password, as curl and Bazel read it.
//!
//! A `default` entry is read and left out. It is meant for whatever host there
//! is no entry for, and here clients say which hosts are asked: whoever named
//! one of their own would be shown the password.
//!
//! A machine may be written as in `fetch.credentials`, with a port or with
//! `http://` before it; other programs pass over such an entry.
//! Called by: `credentials`.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::iter::Peekable;
use std::path::Path;
use std::str::CharIndices;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::HostPattern;
use crate::fetcher::host;
use crate::net::{SecretFileError, read_secret};

const MAX_BYTES: u64 = 64 << 10;

/// Logins by host, of each in the order they count. Shown nowhere.
#[derive(Default)]
pub struct Netrc(HashMap<String, Vec<(HostPattern, HeaderValue)>>);

#[derive(Default)]
struct Entry {
    /// `None` is `default`.
    machine: Option<String>,
    login: Option<String>,
    password: Option<String>,
}

impl Netrc {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &Path) -> Result<Self, SecretFileError> {
        let text = read_secret(path, MAX_BYTES)?;
        let (netrc, has_default) = Self::parse(&text)?;
        if has_default {
            tracing::warn!(
                file = %path.display(),
                "the `default` entry is left out: clients name hosts, and any of these would get \
                 its password"
            );
        }
        Ok(netrc)
    }

    /// The entries for machines, and whether there is one for all others.
    pub(in crate::fetcher) fn parse(text: &SecretString) -> Result<(Self, bool), SecretFileError> {
        let mut tokens = Tokens::new(text.expose_secret());
        let (mut netrc, mut has_default) = (Self::default(), false);
        let mut entry: Option<Entry> = None;
        let bad = |line, why: String| SecretFileError::Lines(vec![(line, why)]);
        loop {
            tokens.skip_comments();
            let line = tokens.line;
            let word = tokens.next().map_err(|why| bad(line, why))?;
            let keyword = match word.as_deref() {
                None => break,
                Some(word @ ("machine" | "login" | "password" | "account" | "macdef")) => word,
                Some("default") => "default",
                Some(_) => return Err(bad(line, UNEXPECTED.to_owned())),
            };
            let value = match keyword {
                "default" => String::new(),
                _ => tokens
                    .next()
                    .and_then(|value| value.ok_or_else(|| format!("ends after `{keyword}`")))
                    .map_err(|why| bad(line, why))?,
            };
            match (keyword, &mut entry) {
                ("macdef", _) => tokens.skip_macro(),
                ("machine" | "default", _) => {
                    has_default |= keyword == "default";
                    let machine = (keyword == "machine").then_some(value);
                    let new = Entry {
                        machine,
                        ..Entry::default()
                    };
                    let done = entry.replace(new);
                    netrc.add(done).map_err(|why| bad(line, why))?;
                }
                (_, None) => {
                    return Err(bad(line, format!("has `{keyword}` before any `machine`")));
                }
                ("login", Some(entry)) => entry.login = Some(value),
                ("password", Some(entry)) => entry.password = Some(value),
                (_, Some(_)) => {}
            }
        }
        let line = tokens.line;
        netrc.add(entry).map_err(|why| bad(line, why))?;
        Ok((netrc, has_default))
    }

    /// The first entry of a machine counts.
    fn add(&mut self, entry: Option<Entry>) -> Result<(), String> {
        let Some(entry) = entry else { return Ok(()) };
        let machine = entry.machine.as_deref().and_then(|text| text.parse().ok());
        let Some(machine) = machine else {
            return Ok(());
        };
        let machine: HostPattern = machine;
        let Some(host) = machine.host().map(str::to_owned) else {
            return Ok(());
        };
        if entry.login.is_none() && entry.password.is_none() {
            return Ok(());
        }
        let (login, password) = (
            entry.login.unwrap_or_default(),
            entry.password.unwrap_or_default(),
        );
        if login.contains(':') {
            return Err(
                "ends an entry whose login has a `:`, which HTTP does not allow".to_owned(),
            );
        }
        let encoded = format!("Basic {}", STANDARD.encode(format!("{login}:{password}")));
        if let Ok(mut value) = HeaderValue::from_str(&encoded) {
            value.set_sensitive(true);
            let entries = self.0.entry(host).or_default();
            entries.push((machine, value));
            // The sort is stable: of the same form the first counts.
            entries.sort_by_key(|(machine, _)| Reverse(machine.rank()));
        }
        Ok(())
    }

    /// The `Authorization` for a URL.
    pub(in crate::fetcher) fn authorization(&self, url: &Url) -> Option<HeaderValue> {
        let entries = self.0.get(host::of(url))?;
        let found = entries.iter().find(|(machine, _)| machine.is_for(url));
        found.map(|(_, value)| value.clone())
    }

    /// Whether there is one for a host, as in [`host::of`], at whatever port.
    pub(super) fn names(&self, host: &str) -> bool {
        self.0.contains_key(host)
    }
}

const UNEXPECTED: &str = "has a word that is none of `machine`, `default`, `login`, `password`, \
                          `account` and `macdef` where one of these must stand; a value with \
                          spaces or quotes needs quotes around it";

impl std::fmt::Debug for Netrc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Netrc(entries for {} hosts withheld)", self.0.len())
    }
}

/// Words between white space, or between double quotes with `\` before what
/// stands for itself.
struct Tokens<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
    /// Of what comes next, counted from 1.
    line: usize,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            rest: text.char_indices().peekable(),
            line: 1,
        }
    }

    fn take(&mut self) -> Option<char> {
        let (_, c) = self.rest.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn skip_space(&mut self) {
        while self
            .rest
            .peek()
            .is_some_and(|(_, c)| c.is_ascii_whitespace())
        {
            self.take();
        }
    }

    /// A word that begins with `#` where a keyword may stand begins a comment;
    /// a password may begin so too.
    fn skip_comments(&mut self) {
        self.skip_space();
        while self.rest.peek().is_some_and(|(_, c)| *c == '#') {
            while self.take().is_some_and(|c| c != '\n') {}
            self.skip_space();
        }
    }

    /// To the end of the next empty line.
    fn skip_macro(&mut self) {
        let at = self.rest.peek().map_or(self.text.len(), |(at, _)| *at);
        let rest = &self.text[at..];
        let first = rest.split_inclusive('\n').next().map_or(0, str::len);
        let mut end = first;
        for line in rest[first..].split_inclusive('\n') {
            end += line.len();
            if line.trim().is_empty() {
                break;
            }
        }
        while self.rest.peek().is_some_and(|(i, _)| *i < at + end) {
            self.take();
        }
    }

    fn next(&mut self) -> Result<Option<String>, String> {
        self.skip_space();
        let Some((_, first)) = self.rest.peek().copied() else {
            return Ok(None);
        };
        let mut word = String::new();
        if first != '"' {
            while self
                .rest
                .peek()
                .is_some_and(|(_, c)| !c.is_ascii_whitespace())
            {
                word.extend(self.take());
            }
            return Ok(Some(word));
        }
        self.take();
        loop {
            match self.take() {
                Some('"') => return Ok(Some(word)),
                Some('\\') => word.push(match self.take() {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some(c) => c,
                    None => return Err(UNCLOSED.to_owned()),
                }),
                Some('\n') | None => return Err(UNCLOSED.to_owned()),
                Some(c) => word.push(c),
            }
        }
    }
}

const UNCLOSED: &str = "has a quoted value that does not end";
