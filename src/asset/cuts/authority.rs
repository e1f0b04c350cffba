//! Authorities of URLs, and the user info in them.
//!
//! Not for: which host is asked (`uri.rs`).
//! Called by: `cuts`.

use super::{Region, Walk, between};

/// An authority, or the end of one: what holds of it from any place within.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authority {
    from: usize,
    end: usize,
    last_at: Option<usize>,
    /// A colon that has no port behind it.
    bad_port: Option<usize>,
}

/// What follows up to where another URL may begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    from: usize,
    end: usize,
    last_at: Option<usize>,
}

impl Walk<'_> {
    /// A URL whose scheme ends at this colon, if it does. Its user info is cut;
    /// returns where its host begins.
    ///
    /// With `http` people leave slashes out, turn them round or write too many;
    /// that counts only where a URL would begin.
    pub(super) fn url(&mut self, colon: usize) -> Option<usize> {
        let (start, host) = self.user_info(colon)?;
        self.cut(start..host);
        let depth = self.text.depth(start - 1);
        let region = *self.region(depth);
        if depth == 0 && self.is_first(colon) {
            // No host has one of these, encoded or not.
            let ends = |at: &usize| {
                let byte = self.text.byte(*at);
                b"/?#".contains(&byte)
                    || (!self.whole
                        && (between(byte) || byte == b'&' || (byte == b';' && *at == host)))
            };
            let end = (host..self.text.len()).find(ends);
            self.host_end = end.unwrap_or(self.text.len());
            self.text.look_at(self.host_end - host);
        }
        if !region.query || region.depth < depth {
            self.enter(Region {
                query: false,
                from: colon,
                depth,
                slash: true,
            });
        }
        self.begin(host);
        if depth == 0 {
            self.part = host;
        }
        Some(host)
    }

    /// The user info of a URL whose scheme ends at this colon, if it does: where
    /// it begins, and behind its end.
    pub(super) fn user_info(&mut self, colon: usize) -> Option<(usize, usize)> {
        let web = self.web(colon);
        let begins = web.is_some_and(|scheme| self.begins(scheme, colon));
        let start = self.authority_start(colon, web.is_some(), begins)?;
        let depth = self.text.depth(start - 1);
        let query = self.region(depth).query;
        let authority = self.authority(start, depth, query);
        let user = authority.last_at.filter(|at| *at >= start).or_else(|| {
            authority.bad_port.filter(|at| begins && *at >= start)?;
            self.tail(start, depth, query)
        });
        Some((start, user.map_or(start, |at| at + 1)))
    }

    /// Where the scheme `http` or `https` before this colon begins.
    pub(super) fn web(&self, colon: usize) -> Option<usize> {
        let scheme = |name: &str| {
            let start = colon.checked_sub(name.len())?;
            let is = self.text.bytes(start..colon);
            let longer = start.checked_sub(1).is_some_and(|at| {
                let byte = self.text.byte(at);
                byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
            });
            (is.eq_ignore_ascii_case(name.as_bytes()) && !longer).then_some(start)
        };
        scheme("http").or_else(|| scheme("https"))
    }

    fn begins(&self, scheme: usize, colon: usize) -> bool {
        let Some(before) = scheme.checked_sub(1) else {
            return true;
        };
        let byte = self.text.byte(before);
        between(byte)
            || b"=?&;#\"'<([{".contains(&byte)
            || self.text.depth(before) < self.text.depth(colon)
    }

    fn authority_start(&self, colon: usize, web: bool, begins: bool) -> Option<usize> {
        let byte = |at: usize| self.text.byte(colon + at);
        if !web {
            return (byte(1) == b'/' && byte(2) == b'/').then_some(colon + 3);
        }
        // One that is encoded deeper than those before it is in the user info.
        let mut shallowest = u8::MAX;
        let slash = |at: &usize| {
            let depth = self.text.depth(colon + at);
            let is = b"/\\".contains(&byte(*at)) && depth <= shallowest;
            shallowest = depth;
            is
        };
        let slashes = (1..).take_while(slash).count();
        self.text.look_at(slashes);
        let next = byte(slashes + 1);
        let enough = slashes > 1 || (begins && next != 0 && !next.is_ascii_whitespace());
        enough.then_some(colon + 1 + slashes)
    }

    /// Whether the scheme before this colon is the first there is: that of the
    /// text, or of the URL that follows what stands between URLs.
    fn is_first(&self, colon: usize) -> bool {
        let in_scheme = |at: &usize| {
            let byte = self.text.byte(*at);
            byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
        };
        let start = colon - (0..colon).rev().take(64).take_while(in_scheme).count();
        start == 0 || (!self.whole && between(self.text.byte(start - 1)))
    }

    fn authority(&mut self, start: usize, depth: u8, query: bool) -> Authority {
        let known = self.authorities[usize::from(depth)][usize::from(query)];
        if let Some(known) = known
            && (known.from..known.end).contains(&start)
        {
            return known;
        }
        let (mut last_at, mut last_mark) = (None, None);
        let mut end = start;
        while end < self.text.len() {
            let (byte, this) = (self.text.byte(end), self.text.depth(end));
            let ends = match byte {
                b'/' | b'?' | b'#' => this <= depth,
                b'&' => this < depth || (query && this == depth),
                b';' => this < depth,
                byte => between(byte) && this < depth,
            };
            if ends {
                break;
            }
            match byte {
                b'@' => last_at = Some(end),
                b':' | b']' => last_mark = Some(end),
                _ => {}
            }
            end += 1;
        }
        self.text.look_at(2 * (end - start));
        let bad_port = last_mark.filter(|at| {
            let port = self.text.bytes(at + 1..end);
            self.text.byte(*at) == b':' && !port.iter().all(u8::is_ascii_digit)
        });
        let found = Authority {
            from: start,
            end,
            last_at,
            bad_port,
        };
        self.authorities[usize::from(depth)][usize::from(query)] = Some(found);
        found
    }

    /// The last `@` of what may be one URL. A password may hold what ends an
    /// authority: then what comes before it reads as a port that is none.
    fn tail(&mut self, start: usize, depth: u8, query: bool) -> Option<usize> {
        let known = self.tails[usize::from(depth)][usize::from(query)];
        let known = known.filter(|known| (known.from..known.end).contains(&start));
        let tail = known.unwrap_or_else(|| self.read_tail(start, depth, query));
        self.tails[usize::from(depth)][usize::from(query)] = Some(tail);
        tail.last_at.filter(|at| *at >= start)
    }

    fn read_tail(&self, start: usize, depth: u8, query: bool) -> Tail {
        let (mut end, mut last_at) = (start, None);
        while end < self.text.len() {
            let (byte, this) = (self.text.byte(end), self.text.depth(end));
            let parted = byte == b'&' && (this < depth || (query && this == depth));
            if parted {
                break;
            }
            if between(byte) && this <= depth && !(self.whole && this == 0) {
                let next = self.between_end(end);
                if self.is_url(next) {
                    break;
                }
                end = next;
                continue;
            }
            if byte == b'@' {
                last_at = Some(end);
            }
            end += 1;
        }
        self.text.look_at(end - start);
        Tail {
            from: start,
            end,
            last_at,
        }
    }
}
