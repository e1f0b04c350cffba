//! Events as JSON: one object a line, the fields of the event on top.
//!
//! tracing-subscriber's own JSON format puts every field into a map of owned
//! values first, which costs more than the rest of an asset call's event. This
//! writes them as they come. The same names, and the same forms of values.
//!
//! Not for: text for people, which event goes where (`log.rs`).
//! Called by: `log.rs`.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes events as JSON.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        out.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut out)?;
        write!(out, "\",\"level\":\"{}\"", metadata.level().as_str())?;
        let mut fields = Fields {
            out: &mut out,
            result: Ok(()),
        };
        event.record(&mut fields);
        fields.result?;
        out.write_str(",\"target\":")?;
        quoted(&mut out, metadata.target())?;
        out.write_str("}\n")
    }
}

/// Appends `,"name":value` for each field.
struct Fields<'a, 'w> {
    out: &'a mut Writer<'w>,
    result: fmt::Result,
}

impl Fields<'_, '_> {
    fn add(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = self.named(field, value);
        }
    }

    fn named(
        &mut self,
        field: &Field,
        value: impl FnOnce(&mut Writer<'_>) -> fmt::Result,
    ) -> fmt::Result {
        // Names stand in the code: nothing in them needs an escape. Some are raw
        // identifiers, such as r#type.
        let name = field.name();
        self.out.write_str(",\"")?;
        self.out
            .write_str(name.strip_prefix("r#").unwrap_or(name))?;
        self.out.write_str("\":")?;
        value(self.out)
    }
}

impl Visit for Fields<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, |out| match value.is_finite() {
            true => write!(out, "{value}"),
            false => out.write_str("null"),
        });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, |out| write!(out, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, |out| write!(out, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, |out| write!(out, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, |out| quoted(out, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, |out| {
            out.write_char('"')?;
            write!(Escaped(out), "{value:?}")?;
            out.write_char('"')
        });
    }
}

/// A JSON string.
fn quoted(out: &mut Writer<'_>, text: &str) -> fmt::Result {
    out.write_str("\"")?;
    escape(out, text)?;
    out.write_str("\"")
}

/// What is written to it becomes the inside of a JSON string.
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text)
    }
}

/// Bytes that cannot stand in a JSON string as they are (RFC 8259, section 7).
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        special[byte] = true;
        byte += 1;
    }
    special[b'"' as usize] = true;
    special[b'\\' as usize] = true;
    special
};

fn escape(out: &mut Writer<'_>, text: &str) -> fmt::Result {
    let mut rest = text;
    let special = |b: u8| SPECIAL[usize::from(b)];
    while let Some(at) = rest.bytes().position(special) {
        // All of these are ASCII, so both cuts are between characters.
        let (plain, from) = rest.split_at(at);
        out.write_str(plain)?;
        match from.as_bytes().first() {
            Some(b'"') => out.write_str("\\\"")?,
            Some(b'\\') => out.write_str("\\\\")?,
            Some(b'\n') => out.write_str("\\n")?,
            Some(byte) => write!(out, "\\u{byte:04x}")?,
            None => {}
        }
        rest = from.get(1..).unwrap_or_default();
    }
    out.write_str(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_one_json_string() {
        let all: String = (0..0x250u32).filter_map(char::from_u32).collect();
        for text in [all.as_str(), "", "\"", "\\", "a\"b\\c\nd\u{0}", "é\u{1}😀"] {
            let mut out = String::new();
            quoted(&mut Writer::new(&mut out), text).unwrap();
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
            assert!(!out.contains('\n'));
        }
    }
}
