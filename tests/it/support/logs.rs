//! What the program printed.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// Lines of one stream of the program, collected as they come.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Collects from `stream` on a thread of its own, until it closes.
    pub fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let into = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                into.0.lock().unwrap().push(line);
            }
        });
        lines
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }

    /// Those lines that are JSON objects.
    pub fn events(&self) -> Vec<Value> {
        let lines = self.0.lock().unwrap();
        let parsed = lines.iter().filter_map(|l| serde_json::from_str(l).ok());
        parsed.filter(Value::is_object).collect()
    }
}

/// A field of a JSON log event, wherever the format puts fields; as text.
pub fn field(event: &Value, name: &str) -> Option<String> {
    let value = event
        .get(name)
        .or_else(|| event.get("fields").and_then(|f| f.get(name)))?;
    Some(match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}
