//! One `rewrite` line: a pattern, and what a URL becomes that it matches.
//!
//! Bazel asks Java whether the pattern matches the whole URL, and then has it
//! replace the *first find*. These are two questions: `(.*?)` matches any URL
//! as a whole, but its first find is empty, at the beginning. Here too.
//! Called by: `url_rules`, `parse`.

use regex::bytes::{Captures, Regex, RegexBuilder};

use super::MAX_URL;

/// What one expression may take once compiled. One of Bazel's examples takes
/// 10 KiB.
const MAX_COMPILED: usize = 512 << 10;

/// A `rewrite` line.
#[derive(Debug)]
pub(super) struct Rewrite {
    /// Counted from 1.
    pub(super) line: usize,
    whole: Regex,
    pattern: Regex,
    substitution: Vec<Part>,
}

/// A piece of a substitution.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// What the group of this number matched.
    Group(usize),
}

impl Rewrite {
    /// Or what is wrong with the line.
    pub(super) fn new(line: usize, pattern: &str, substitution: &str) -> Result<Self, String> {
        let wrong =
            |error: regex::Error| format!("has a pattern that cannot be used: {}", said(&error));
        if has_possessive(pattern) {
            return Err("has a possessive quantifier (as in `a++`), which is not built in".into());
        }
        let find = compile(pattern).map_err(wrong)?;
        let whole = compile(&format!(r"\A(?:{pattern})\z")).map_err(wrong)?;
        if substitution.contains("urlencode(") {
            return Err("calls `urlencode`, which is not built in".to_owned());
        }
        let substitution = parts(substitution, &find)
            .map_err(|why| format!("has a substitution that cannot be used: {why}"))?;
        Ok(Self {
            line,
            whole,
            pattern: find,
            substitution,
        })
    }

    /// What becomes of a URL without its scheme, if this rule is about it;
    /// `Some(None)` if that is too long, or no text.
    pub(super) fn apply(&self, url: &str) -> Option<Option<String>> {
        if !self.whole.is_match(url.as_bytes()) {
            return None;
        }
        let found = self.pattern.captures(url.as_bytes())?;
        Some(self.replace(url.as_bytes(), &found))
    }

    fn replace(&self, url: &[u8], found: &Captures<'_>) -> Option<String> {
        let all = found.get(0)?;
        let mut out = url[..all.start()].to_vec();
        for part in &self.substitution {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Group(n) => {
                    out.extend_from_slice(found.get(*n).map_or(b"", |g| g.as_bytes()))
                }
            }
            if out.len() > MAX_URL {
                return None;
            }
        }
        out.extend_from_slice(&url[all.end()..]);
        String::from_utf8(out).ok()
    }

    /// Whether what is written in the substitution may be user info: an `@`
    /// before the path.
    pub(super) fn may_have_user_info(&self) -> bool {
        let mut written = String::new();
        for part in &self.substitution {
            match part {
                Part::Text(text) => written.push_str(text),
                // Stands for something, and for no slash.
                Part::Group(_) => written.push('$'),
            }
        }
        let rest = written
            .split_once("://")
            .map_or(&*written, |(_, rest)| rest);
        let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or(rest);
        authority.contains('@')
    }
}

/// Whether a quantifier stands before a `+`, outside brackets. To Java that
/// forbids it to give anything back; to this crate it is one more repetition.
fn has_possessive(pattern: &str) -> bool {
    let (mut brackets, mut after_quantifier) = (0_usize, false);
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        if c == '+' && after_quantifier && brackets == 0 {
            return true;
        }
        after_quantifier = matches!(c, '*' | '+' | '?' | '}');
        match c {
            '\\' => drop(rest.next()),
            '[' => brackets += 1,
            ']' => brackets = brackets.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// In ASCII, as Java's expressions are and URLs once parsed.
fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(MAX_COMPILED)
        .nest_limit(64)
        .build()
}

/// The last line of a message that draws where the mistake is.
fn said(error: &regex::Error) -> String {
    if let regex::Error::CompiledTooBig(_) = error {
        return format!(
            "it takes more than {} KiB once compiled",
            MAX_COMPILED >> 10
        );
    }
    let text = error.to_string();
    let last = text.lines().last().unwrap_or(&text).trim();
    let last = last.strip_prefix("error: ").unwrap_or(last);
    last.chars().take(200).collect()
}

/// Java's replacement syntax: `$1`, `${name}`, and `\` before what stands for
/// itself.
fn parts(text: &str, pattern: &Regex) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => literal.push(rest.next().ok_or("it ends in `\\`")?),
            '$' => {
                let group = group(&mut rest, pattern)?;
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Group(group));
            }
            c => literal.push(c),
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    Ok(parts)
}

/// The group behind a `$`. Further digits belong to its number as long as
/// there is such a group.
fn group(rest: &mut std::str::Chars<'_>, pattern: &Regex) -> Result<usize, String> {
    let count = pattern.captures_len() - 1;
    if let Some(braced) = rest.as_str().strip_prefix('{') {
        let (name, after) = braced.split_once('}').ok_or("`${` without `}`")?;
        *rest = after.chars();
        let named = pattern.capture_names().position(|n| n == Some(name));
        return named
            .ok_or_else(|| "`${NAME}` names a group that the pattern does not have".into());
    }
    let first = rest.next().and_then(|c| c.to_digit(10));
    let bare = "`$` without a number behind it; write `\\$` for the character";
    let mut number = first.ok_or(bare)? as usize;
    if number > count {
        return Err(format!("`${number}` where the pattern has {count} groups"));
    }
    while let Some(digit) = rest.as_str().chars().next().and_then(|c| c.to_digit(10)) {
        let longer = number * 10 + digit as usize;
        if longer > count {
            break;
        }
        number = longer;
        rest.next();
    }
    Ok(number)
}
