//! Finds where in a text the secrets of URLs stand: user info, and parameters
//! that hold secrets, in path, query and fragment, in URLs without a scheme and
//! in what is encoded, too.
//!
//! The text is read decoded, in one walk, and every delimiter counts to its own
//! depth: what was encoded within a value does not end the value. Of what could
//! be more of a secret or something else, the secret is taken.
//!
//! Every step looks at each byte a fixed number of times (once more for each
//! depth), so all of it takes time linear in the length, whoever wrote the text;
//! should one not, that is counted, and the text goes as a whole.
//! Not for: names (`secret_names.rs`), encodings (`decoded.rs`).
//! Called by: `scrub.rs`.

mod authority;
mod parameter;

use std::ops::Range;

use super::decoded::{DEPTH, Decoded};
use authority::{Authority, Tail};

const DEPTHS: usize = DEPTH as usize + 1;

/// How often each byte is looked at, at most. Other texts than those that
/// attack this do with a tenth.
const MOST: usize = 200;

/// Where in `raw` there are secrets, in order. `whole` says that it is one URL
/// whatever is in it; else what stands between URLs parts it.
pub(super) fn cuts(raw: &[u8], whole: bool) -> Vec<Range<usize>> {
    let text = Decoded::new(raw);
    text.look_at(text.len());
    let mut walk = Walk {
        text: &text,
        whole,
        cuts: Vec::new(),
        regions: [Region::default(); DEPTHS],
        name: Name::default(),
        part: 0,
        host_end: 0,
        authorities: [[None; 2]; DEPTHS],
        tails: [[None; 2]; DEPTHS],
        signatures: [None; DEPTHS],
    };
    let mut at = 0;
    while at < text.len() {
        // What is made to be looked at for long is none that anybody needs.
        if text.looked_at() > MOST * (text.len() + 64) {
            return std::iter::once(0..raw.len()).collect();
        }
        at = walk.step(at);
    }
    walk.cuts
}

/// What stands between URLs that were joined.
pub(super) fn between(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b',' | b'|')
}

/// What names and schemes are made of, and nothing that ends them.
fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"_-.[]~$!*+".contains(&byte)
}

/// What the walk is in, at one depth.
#[derive(Debug, Clone, Copy, Default)]
struct Region {
    /// A query or fragment; else a path, or a text that is none of these.
    query: bool,
    /// Where it began, and how deep what began it was.
    from: usize,
    depth: u8,
    /// There was a slash: it is a path, and the next one ends its parameters.
    slash: bool,
}

/// Where the name of a parameter would begin.
#[derive(Debug, Clone, Copy, Default)]
struct Name {
    from: usize,
    /// What stands before it and goes with it.
    separator: Option<usize>,
    /// Behind a `=`: the name is what reads as one, not all there is.
    loose: bool,
    /// In a path, where many a segment has a `=`: it has to be plain.
    of_segment: bool,
}

struct Walk<'a> {
    text: &'a Decoded<'a>,
    whole: bool,
    /// In the text as it was written.
    cuts: Vec<Range<usize>>,
    regions: [Region; DEPTHS],
    name: Name,
    /// Where the parameter or segment begins that is not encoded itself.
    part: usize,
    /// Up to there nothing is a parameter: the host stays as it is.
    host_end: usize,
    // What was found by looking ahead, for each depth; of the first two, without
    // a query and in one, as a text can go from one to the other and back.
    authorities: [[Option<Authority>; 2]; DEPTHS],
    tails: [[Option<Tail>; 2]; DEPTHS],
    signatures: [Option<(usize, super::signed::Schemes)>; DEPTHS],
}

impl Walk<'_> {
    /// Looks at the byte there; returns where to look next.
    fn step(&mut self, at: usize) -> usize {
        if self.text.is_too_deep(at) {
            return self.too_deep(at);
        }
        match self.text.byte(at) {
            b'=' => return self.equals(at),
            b'?' | b'#' => {
                let depth = self.text.depth(at);
                self.enter(Region {
                    query: true,
                    from: at,
                    depth,
                    slash: false,
                });
                self.separator(at);
            }
            b'&' | b';' => {
                self.leave(at);
                self.separator(at);
            }
            b':' => match self.url(at) {
                Some(next) => return next,
                None => self.punctuation(at),
            },
            byte if between(byte) => return self.between(at),
            byte if in_name(byte) => {}
            _ => self.punctuation(at),
        }
        at + 1
    }

    fn region(&self, depth: u8) -> &Region {
        &self.regions[usize::from(depth.min(DEPTH))]
    }

    /// A region begins, at its depth and below.
    fn enter(&mut self, region: Region) {
        self.regions[usize::from(region.depth.min(DEPTH))..].fill(region);
    }

    /// What was encoded ends at a delimiter that was not, or was less.
    fn leave(&mut self, at: usize) {
        let depth = self.text.depth(at);
        let region = *self.region(depth);
        let below = usize::from(depth.min(DEPTH)) + 1;
        self.regions[below..].fill(Region {
            from: at,
            depth,
            ..region
        });
    }

    fn separator(&mut self, at: usize) {
        self.name = Name {
            from: at + 1,
            separator: Some(at),
            ..Name::default()
        };
        if self.text.depth(at) == 0 {
            self.part = at + 1;
        }
    }

    /// A name may begin behind it, but for in a query: there it is part of one.
    fn punctuation(&mut self, at: usize) {
        let depth = self.text.depth(at);
        if self.region(depth).query {
            return;
        }
        self.name = Name {
            from: at + 1,
            of_segment: true,
            ..Name::default()
        };
        if self.text.byte(at) == b'/' {
            self.regions[usize::from(depth.min(DEPTH))].slash = true;
            self.leave(at);
            if depth == 0 {
                self.part = at + 1;
            }
        }
    }

    fn begin(&mut self, from: usize) {
        self.name = Name {
            from,
            ..Name::default()
        };
    }

    /// White space and what else stands between URLs, all there is of it.
    fn between(&mut self, at: usize) -> usize {
        let end = self.between_end(at);
        let shallow = (at..end).min_by_key(|at| self.text.depth(*at));
        let shallow = shallow.unwrap_or(at);
        let depth = self.text.depth(shallow);
        let comma = (at..end).rev().find(|at| self.text.byte(*at) == b',');
        self.leave(shallow);
        if self.is_url(end) {
            self.enter(Region {
                query: false,
                from: at,
                depth,
                slash: false,
            });
            self.begin(end);
        } else if let Some(comma) = comma {
            self.separator(comma);
            self.name.from = end;
        } else if !self.region(depth).query && self.text.byte(end) != b'=' {
            self.begin(end);
        }
        if depth == 0 {
            self.part = end;
        }
        end
    }

    fn between_end(&self, at: usize) -> usize {
        let more = |at: &usize| {
            *at < self.text.len() && between(self.text.byte(*at)) && !self.text.is_too_deep(*at)
        };
        let end = at + (at..).take_while(more).count();
        self.text.look_at(end - at);
        end
    }

    /// Whether a URL begins there: one with a scheme, or one without that has a
    /// path and a query of its own.
    fn is_url(&self, at: usize) -> bool {
        let byte = |at: usize| self.text.byte(at);
        let from = at + usize::from(b"\"'<([".contains(&byte(at)));
        let in_scheme =
            |at: &usize| byte(*at).is_ascii_alphanumeric() || b"+-.".contains(&byte(*at));
        let colon = from + (from..from + 32).take_while(in_scheme).count();
        if byte(colon) == b':' {
            let slashes = byte(colon + 1) == b'/' && byte(colon + 2) == b'/';
            return slashes || self.web(colon).is_some();
        }
        let mut slash = false;
        for at in from..self.text.len() {
            self.text.look_at(1);
            match byte(at) {
                b'?' => return slash,
                b'/' => slash = true,
                b'&' | b';' | b'#' | b'=' => return false,
                byte if between(byte) => return false,
                _ => {}
            }
        }
        false
    }

    /// What nobody can look into goes with the parameter or segment it is in.
    fn too_deep(&mut self, at: usize) -> usize {
        let path = !self.region(0).query;
        let mut end = at;
        while end < self.text.len() {
            let byte = self.text.byte(end);
            let delimiter = b"?&;#".contains(&byte) || between(byte) || (path && byte == b'/');
            if delimiter && self.text.depth(end) == 0 {
                break;
            }
            // Without its scheme the user info of a URL would be none.
            let user = (byte == b':').then(|| self.user_info(end)).flatten();
            end = user.map_or(end + 1, |(_, host)| host);
        }
        self.text.look_at(end - at);
        self.cut(self.part..end);
        self.begin(end);
        end
    }

    /// What lies within, or meets, what was cut before becomes one with it.
    fn cut(&mut self, decoded: Range<usize>) {
        let mut cut = self.text.written(decoded);
        if cut.is_empty() {
            return;
        }
        while let Some(last) = self.cuts.last().filter(|last| cut.start <= last.end) {
            cut.start = cut.start.min(last.start);
            cut.end = cut.end.max(last.end);
            self.cuts.pop();
        }
        self.cuts.push(cut);
    }
}
