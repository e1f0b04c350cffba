//! Flags as `--name value` pairs.
//!
//! Not for: help texts; each program's head comment lists its flags.
//! Called by: every program of this crate.

/// The words after the program's name.
pub struct Args(Vec<String>);

impl Args {
    /// Those this process was started with.
    #[must_use]
    pub fn of_process() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    /// The first word: the command of a program that has several.
    #[must_use]
    pub fn command(&self) -> &str {
        self.0.first().map_or("", |word| word.as_str())
    }

    /// The word after the flag.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|a| a == name)?;
        self.0.get(at + 1).map(|s| s.as_str())
    }

    /// The number after the flag.
    ///
    /// # Panics
    ///
    /// When it is no number.
    #[must_use]
    pub fn num(&self, name: &str, default: u64) -> u64 {
        self.text(name).map_or(default, |v| {
            v.parse()
                .unwrap_or_else(|_| panic!("{name} wants a number, not `{v}`"))
        })
    }

    /// Every `--pid`.
    ///
    /// # Panics
    ///
    /// When one is no number.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let values = self.0.iter().zip(self.0.iter().skip(1));
        values
            .filter(|(name, _)| *name == "--pid")
            .map(|(_, v)| {
                v.parse()
                    .unwrap_or_else(|_| panic!("--pid wants a number, not `{v}`"))
            })
            .collect()
    }
}
