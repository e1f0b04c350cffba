//! Logs on standard error: text for people, JSON for machines.
//!
//! Not for: which events there are.
//! Called by: `cli` through `telemetry`.

use std::io::{self, IsTerminal as _, Write as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::json::Json;
use super::queue::{self, Flush};

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// JSON or text; `None` is text on a terminal, else JSON.
    pub json: Option<bool>,
    /// `error`, `warn`, `info`, `debug` or `trace`, for this crate; others log
    /// warnings at most, as their details are rarely about what a user did, and
    /// h2 errors only: it warns of frames, which a client can send at will.
    pub level: String,
    /// The value of `RUST_LOG`, which replaces `level` when it makes sense.
    pub directives: Option<String>,
}

impl LogSettings {
    /// Whether logs will be JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
            .unwrap_or_else(|| !std::io::stderr().is_terminal())
    }

    fn filter(&self) -> EnvFilter {
        let given = self
            .directives
            .as_deref()
            .filter(|text| !text.trim().is_empty());
        given
            .and_then(|text| EnvFilter::try_new(text).ok())
            .unwrap_or_else(|| {
                let level = &self.level;
                let others = if level == "error" { "error" } else { "warn" };
                EnvFilter::new(format!("{others},h2=error,assetgate={level}"))
            })
    }
}

/// Logs to standard error from now on, through a queue: no thread ever waits
/// for whoever reads it. Only the first call of a process counts.
///
/// # Errors
/// When it is not the first, or there is no thread to be had.
pub fn init_log(settings: &LogSettings) -> io::Result<Flush> {
    let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (queue, flush) = queue::start(io::stderr(), |dropped| {
        tracing::warn!(dropped, "log lines were left out, as nobody read them");
    })?;
    let set = subscriber(settings, color, queue).try_init();
    set.map_err(io::Error::other)?;
    // The default one writes to standard error itself, and would wait there.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(flush)
}

/// A function that prints on standard output without waiting for whoever
/// reads it.
///
/// # Errors
/// When there is no thread to be had.
pub fn printer() -> io::Result<(impl Fn(&str) + Send + Sync + 'static, Flush)> {
    let (queue, flush) = queue::start(io::stdout(), |_| ())?;
    // A queue takes all it is given.
    let print = move |text: &str| drop((&queue).write_all(text.as_bytes()));
    Ok((print, flush))
}

fn subscriber<W>(
    settings: &LogSettings,
    color: bool,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(settings.filter())
        .with_writer(writer);
    if settings.is_json() {
        Box::new(builder.event_format(Json).finish())
    } else {
        Box::new(builder.with_ansi(color).with_target(false).finish())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool, level: &str, directives: Option<&str>) -> String {
        let settings = LogSettings {
            json: Some(json),
            level: level.to_owned(),
            directives: directives.map(str::to_owned),
        };
        let sink = Sink::default();
        let writer = sink.clone();
        tracing::subscriber::with_default(
            subscriber(&settings, false, move || writer.clone()),
            || {
                tracing::info!(target: "assetgate::api", { asset.uri = "u" }, "said");
                tracing::debug!(target: "assetgate::api", "whispered");
                tracing::info!(target: "hyper", "chattered");
                tracing::warn!(target: "h2::proto::ping_pong", "flooded");
            },
        );
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_is_one_object_a_line_with_the_fields_on_top() {
        let text = logged(true, "info", None);
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert_eq!(lines[0]["message"], "said");
        assert_eq!(lines[0]["asset.uri"], "u");
    }

    #[test]
    fn values_of_every_kind_are_json() {
        let sink = Sink::default();
        let writer = sink.clone();
        let settings = LogSettings {
            json: Some(true),
            level: "info".to_owned(),
            directives: None,
        };
        let none: Option<&str> = None;
        tracing::subscriber::with_default(
            subscriber(&settings, false, move || writer.clone()),
            || {
                let error = std::io::Error::other("it \"failed\"\n");
                tracing::warn!(
                    target: "assetgate::api",
                    { text = "a\"b\\c\n", number = -7, size = u64::MAX, share = 0.25, nan = f64::NAN,
                      yes = true, error = %error, debug = ?Some("x"), none, r#type = "t" },
                    "said {}", "so"
                );
            },
        );
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
        let mut line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let stamp = line["timestamp"].take();
        assert!(stamp.as_str().is_some_and(|s| s.ends_with('Z')), "{text}");
        let want = serde_json::json!({
            "timestamp": null, "level": "WARN", "target": "assetgate::api", "message": "said so",
            "text": "a\"b\\c\n", "number": -7, "size": u64::MAX, "share": 0.25, "nan": null,
            "yes": true, "error": "it \"failed\"\n", "debug": "Some(\"x\")", "type": "t",
        });
        assert_eq!(line, want);
    }

    #[test]
    fn levels_are_ours_and_rust_log_replaces_them() {
        assert!(logged(false, "debug", None).contains("whispered"));
        assert!(!logged(false, "debug", None).contains("chattered"));
        assert!(!logged(false, "debug", None).contains("flooded"));
        assert!(!logged(false, "warn", None).contains("said"));
        assert!(logged(false, "error", Some("info")).contains("chattered"));
        assert!(
            logged(false, "info", Some("")).contains("said"),
            "empty is not set"
        );
        assert!(
            logged(false, "info", Some("a=b=c")).contains("said"),
            "nonsense is not set"
        );
    }
}
