//! The line that moves while a fetch goes on: on a terminal, and nowhere else.
//!
//! Without colours, so that there is nothing for NO_COLOR to switch off.
//! Not for: where the figures come from (`watch`, `blob`).
//! Called by: `cli::fetch`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::watch::Seen;

const SPINNER: &str = "{spinner} {elapsed} {wide_msg}";
const BYTES: &str = "{spinner} {elapsed} {bytes} {bytes_per_sec} {wide_msg}";
const BAR: &str = "{spinner} {elapsed} [{bar:20}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left, {wide_msg}";

/// Times a second that it is drawn.
const RATE: u8 = 10;

/// A line on standard error.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// One that draws nothing unless standard error is a terminal.
    pub(super) fn new() -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(RATE);
        let bar = ProgressBar::with_draw_target(None, target);
        let bar = Self(bar);
        bar.style(SPINNER);
        bar.0.set_message("asking the server");
        bar
    }

    /// Whether nobody sees it.
    pub(super) fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    fn style(&self, template: &str) {
        // The templates are constants, and a test parses them.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style.progress_chars("=> "));
        }
    }

    /// Time passes.
    pub(super) fn tick(&self) {
        self.0.tick();
    }

    /// What the server does.
    pub(super) fn show(&self, seen: &Seen) {
        self.bytes(seen.bytes, seen.total);
        self.0.set_message(seen.words());
    }

    /// The server is asked again after a while.
    pub(super) fn pause(&self, pause: Duration, why: &str) {
        let pause = humantime::format_duration(Duration::from_secs(pause.as_secs()));
        self.style(SPINNER);
        self.0
            .set_message(format!("asking again in {pause}: {why}"));
    }

    /// The content is read, so many bytes of so many.
    pub(super) fn read(&self, bytes: u64, total: u64) {
        self.bytes(bytes, Some(total));
        self.0.set_message("reading");
    }

    fn bytes(&self, bytes: u64, total: Option<u64>) {
        match total {
            Some(total) => {
                if self.0.length() != Some(total) {
                    self.0.set_length(total);
                    self.style(BAR);
                }
            }
            None => self.style(if bytes == 0 { SPINNER } else { BYTES }),
        }
        if bytes < self.0.position() {
            // Content begins anew: a speed over both would be wrong.
            self.0.reset_eta();
        }
        self.0.set_position(bytes);
    }

    /// There is nothing more to show.
    pub(super) fn done(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_templates() {
        for template in [SPINNER, BYTES, BAR] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_download_that_begins_anew_goes_back() {
        let bar = Bar(ProgressBar::hidden());
        let mut seen = Seen {
            bytes: 7,
            total: Some(10),
            ..Seen::default()
        };
        bar.show(&seen);
        assert_eq!((bar.0.position(), bar.0.length()), (7, Some(10)));
        seen.bytes = 2;
        bar.show(&seen);
        assert_eq!(bar.0.position(), 2);
        bar.read(3, 20);
        assert_eq!((bar.0.position(), bar.0.length()), (3, Some(20)));
    }
}
