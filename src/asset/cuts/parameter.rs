//! Parameters that hold secrets, and what goes with them.
//!
//! Not for: names (`secret_names.rs`, `signed.rs`).
//! Called by: `cuts`.

use super::super::secret_names::{is_plainly_secret, is_secret};
use super::super::signed::{Schemes, beside_signature_of, signature_of};
use super::{Name, Walk, between, in_name};

impl Walk<'_> {
    /// A parameter, if a name stands before; it is cut if it holds a secret.
    /// Returns where to go on.
    pub(super) fn equals(&mut self, at: usize) -> usize {
        if at >= self.host_end
            && let Some(next) = self.secret(at)
        {
            return next;
        }
        self.leave(at);
        self.name = Name {
            from: at + 1,
            separator: None,
            loose: true,
            of_segment: self.name.of_segment,
        };
        at + 1
    }

    fn secret(&mut self, equals: usize) -> Option<usize> {
        let depth = self.text.depth(equals);
        let mut name = self.name;
        if name.loose {
            let more = |at: &usize| in_name(self.text.byte(*at)) && !self.text.is_too_deep(*at);
            let own = (name.from..equals).rev().take_while(more).count();
            name.from = equals - own;
        }
        self.text.look_at(equals - name.from);
        let separator = name.separator.map(|at| (at, self.text.byte(at)));
        let pads = matches!(separator, None | Some((_, b',')));
        // Cheaper to see than what a name means; none is asked twice.
        if pads && equals > name.from && self.is_padding(equals) {
            return None;
        }
        let text = self.text.bytes(name.from..equals);
        if name.of_segment && !is_plainly_secret(text) {
            return None;
        }
        if !is_secret(text) && !self.goes_with_signature(name, equals) {
            return None;
        }
        let end = self.value_end(equals + 1, depth);
        match separator {
            Some((at, b'?' | b'#')) if self.goes_on(at, end) => {
                // The next parameter takes its place.
                self.cut(name.from..end + 1);
                self.leave(end);
                self.separator(at);
                self.name.from = end + 1;
                if self.text.depth(at) == 0 {
                    self.part = end + 1;
                }
                return Some(end + 1);
            }
            // What was encoded has the name, and this has what was encoded.
            Some((at, _)) if self.text.depth(at) >= depth => self.cut(at..end),
            _ => self.cut(name.from..end),
        }
        self.begin(end);
        Some(end)
    }

    /// Whether it ends a text in Base64, and nothing is its value.
    fn is_padding(&self, equals: usize) -> bool {
        let more = (equals..self.text.len()).take_while(|at| self.text.byte(*at) == b'=');
        let end = equals + more.count();
        self.text.look_at(end - equals);
        let next = self.text.byte(end);
        let apart = equals
            .checked_sub(1)
            .is_some_and(|at| between(self.text.byte(at)));
        !apart && (end == self.text.len() || between(next) || b"&;?#/".contains(&next))
    }

    /// Whether what stands there parts two parameters of the query that begins
    /// at `opening`.
    fn goes_on(&self, opening: usize, at: usize) -> bool {
        let parts = match self.text.byte(at) {
            b'&' | b';' => true,
            b',' => self.is_parameter(at + 1),
            _ => false,
        };
        parts && self.text.depth(opening) == self.text.depth(at)
    }

    /// Where a value ends. What stands between URLs may stand in a value too,
    /// unless a URL follows, or behind a comma a parameter. `depth` is that of the
    /// `=`: what is encoded deeper ends nothing.
    fn value_end(&mut self, start: usize, depth: u8) -> usize {
        let mut at = start;
        while at < self.text.len() {
            let (byte, this) = (self.text.byte(at), self.text.depth(at));
            if this > depth && byte != b':' {
                at += 1;
                continue;
            }
            let region = *self.region(this);
            match byte {
                // A URL as a value: without its scheme its user info would be none.
                b':' => at = self.user_info(at).map_or(at + 1, |(_, host)| host),
                b'&' | b';' | b'?' | b'#' => break,
                b'/' if !region.query && region.slash => break,
                byte if between(byte) => {
                    let end = self.between_end(at);
                    let comma = byte == b',' && end == at + 1;
                    let parted = end == self.text.len()
                        || self.is_url(end)
                        || (comma && self.is_parameter(end))
                        // A word ends there, but not what stands before a value.
                        || (!comma && !region.query && at > start);
                    if parted {
                        break;
                    }
                    at = end;
                }
                _ => at += 1,
            }
        }
        self.text.look_at(at - start);
        at
    }

    /// Whether a name and a value begin there.
    fn is_parameter(&self, at: usize) -> bool {
        let name = (at..at + 64).take_while(|at| in_name(self.text.byte(*at)));
        let equals = at + name.count();
        self.text.look_at(equals - at);
        let value = self.text.byte(equals + 1);
        let ends = value == 0 || value == b'=' || between(value) || b"&;#".contains(&value);
        equals > at && self.text.byte(equals) == b'=' && !ends
    }

    /// Whether it stands in a query with the signature it belongs to.
    fn goes_with_signature(&mut self, name: Name, equals: usize) -> bool {
        let schemes = beside_signature_of(self.text.bytes(name.from..equals));
        let depth = self.text.depth(equals);
        schemes != 0 && self.region(depth).query && schemes & self.signatures(depth) != 0
    }

    /// The schemes whose signature stands in the query at this depth.
    fn signatures(&mut self, depth: u8) -> Schemes {
        let region = *self.region(depth);
        if let Some((from, schemes)) = self.signatures[usize::from(depth)]
            && from == region.from
        {
            return schemes;
        }
        // One within a value of another ends with that (`Walk::leave`).
        let opened = b"?#".contains(&self.text.byte(region.from));
        let inner = region.depth + u8::from(!opened);
        let mut schemes = 0;
        let mut name = Some(region.from + 1);
        let mut at = region.from + 1;
        while at < self.text.len() {
            let (byte, this) = (self.text.byte(at), self.text.depth(at));
            match byte {
                _ if this > depth => {}
                b'?' | b'#' => break,
                b'&' | b';' | b'=' if this < inner => break,
                byte if between(byte) && this < inner => break,
                b'&' | b';' | b',' => name = Some(at + 1),
                b'=' => {
                    let is = |from| signature_of(self.text.bytes(from..at));
                    schemes |= name.take().map_or(0, is);
                }
                _ => {}
            }
            at += 1;
        }
        self.text.look_at(at - region.from);
        self.signatures[usize::from(depth)] = Some((region.from, schemes));
        schemes
    }
}
