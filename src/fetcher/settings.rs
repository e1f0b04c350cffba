//! What an operator can set about fetching, checked as a whole.
//!
//! Not for: reading configuration (`config` fills this in).
//! Called by: `config`, `server`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::OriginCredential;
use super::{NoProxy, ProxyAddress, Rate};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Settings of the fetcher.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Time for a whole fetch if the request names none.
    pub timeout: Duration,
    /// The longest time a request may ask for; more is cut to this.
    pub max_timeout: Duration,
    /// The largest content accepted, in bytes.
    pub max_size: u64,
    /// Ranges that may be dialled although special-use.
    pub allow_cidr: Vec<IpNet>,
    /// Ranges that may never be dialled; these win.
    pub deny_cidr: Vec<IpNet>,
    /// A PEM file with certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// A file with rules about which URLs are asked.
    pub rules: Option<PathBuf>,
    /// Act as if there were no rules, and only tell what they would do.
    pub rules_report_only: bool,
    /// A netrc file with this service's logins.
    pub netrc: Option<PathBuf>,
    /// Files with headers of this service, by host.
    pub credentials: Vec<OriginCredential>,
    /// Offer HTTP/2 to origins (after HTTP/1.1).
    pub http2: bool,
    /// Time for name look-up, connection and TLS together.
    pub connect_timeout: Duration,
    /// Time from a request that was sent to the head of its response.
    pub first_byte_timeout: Duration,
    /// Longest silence of an origin within its answer.
    pub stall_timeout: Duration,
    /// Requests for one URL that fail in passing before it is given up.
    pub attempts: u32,
    /// What is waited before the second of them; doubled for each further one.
    pub retry_delay: Duration,
    /// Longest chain of redirects.
    pub max_redirects: u32,
    /// Requests to origins that run at once; more wait.
    pub max_concurrent: usize,
    /// Of these, to one host.
    pub max_per_host: usize,
    /// How fast one may follow another at one host; `None` is no limit.
    pub rate_per_host: Option<Rate>,
    /// Connections to origins that are open, idle ones included.
    pub max_connections: usize,
    /// The proxy before the origins.
    pub proxy: Option<ProxyAddress>,
    /// File with its `user:password`.
    pub proxy_credential: Option<PathBuf>,
    /// What is reached without it.
    pub no_proxy: Vec<NoProxy>,
    /// Bodies up to this many bytes may stay in memory.
    pub small_body: u64,
    /// Bytes of all bodies in memory together.
    pub memory: u64,
    /// Where temporary files go; without it, only what fits into memory is
    /// fetched.
    pub spool_dir: Option<PathBuf>,
    /// Bytes of all temporary files together.
    pub spool_size: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(600),
            max_timeout: Duration::from_secs(3600),
            max_size: 16 * GIB,
            allow_cidr: Vec::new(),
            deny_cidr: Vec::new(),
            ca: None,
            rules: None,
            rules_report_only: false,
            netrc: None,
            credentials: Vec::new(),
            http2: true,
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(180),
            stall_timeout: Duration::from_secs(60),
            attempts: 5,
            retry_delay: Duration::from_millis(500),
            max_redirects: 10,
            max_concurrent: 64,
            max_per_host: 16,
            rate_per_host: None,
            max_connections: 256,
            proxy: None,
            proxy_credential: None,
            no_proxy: Vec::new(),
            small_body: MIB,
            memory: 16 * MIB,
            spool_dir: super::spool_place(None),
            spool_size: 64 * GIB,
        }
    }
}

/// One thing wrong with the settings: the key, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fetch.{key}: {problem}")]
pub struct SettingsError {
    /// The key within the section.
    pub key: &'static str,
    /// What is wrong with its value.
    pub problem: String,
}

impl Settings {
    /// Everything that is wrong with the settings (the CA file is looked at
    /// when the fetcher is built).
    pub fn check(&self) -> Result<(), Vec<SettingsError>> {
        let mut errors = Vec::new();
        let mut demand = |fine: bool, key: &'static str, problem: &str| {
            if !fine {
                let problem = problem.to_owned();
                errors.push(SettingsError { key, problem });
            }
        };
        for (key, value) in [
            ("timeout", self.timeout),
            ("connect_timeout", self.connect_timeout),
            ("first_byte_timeout", self.first_byte_timeout),
            ("stall_timeout", self.stall_timeout),
            ("retry_delay", self.retry_delay),
        ] {
            demand(!value.is_zero(), key, "must be longer than zero");
        }
        let ordered = self.timeout <= self.max_timeout;
        demand(ordered, "max_timeout", "must not be shorter than timeout");
        demand(self.max_size > 0, "max_size", "must be more than zero");
        demand(
            self.max_redirects <= 50,
            "max_redirects",
            "must be at most 50",
        );
        let attempts = (1..=100).contains(&self.attempts);
        demand(attempts, "attempts", "must be from 1 to 100");
        for (key, value) in [
            ("max_concurrent", self.max_concurrent),
            ("max_per_host", self.max_per_host),
            ("max_connections", self.max_connections),
        ] {
            let fits = (1..=100_000).contains(&value);
            demand(fits, key, "must be from 1 to 100000");
        }
        let room = self.small_body <= self.memory;
        demand(room, "small_body", "must not be more than memory");
        demand(self.memory >= 64 * KIB, "memory", "must be at least 64 KiB");
        demand(
            self.spool_size >= MIB,
            "spool_size",
            "must be at least 1 MiB",
        );
        if let Some(Err(problem)) = self.spool_dir.as_deref().map(writable) {
            demand(false, "spool_dir", &problem);
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }
}

fn writable(dir: &Path) -> Result<(), String> {
    tempfile::tempfile_in(dir)
        .map(drop)
        .map_err(|error| format!("no file can be made in {}: {error}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_all_errors_are_told_at_once() {
        assert_eq!(Settings::default().check(), Ok(()));
        let bad = Settings {
            timeout: Duration::ZERO,
            max_timeout: Duration::ZERO,
            max_size: 0,
            stall_timeout: Duration::ZERO,
            attempts: 0,
            max_concurrent: 0,
            small_body: 32 * MIB,
            spool_dir: Some("/nonexistent/dir".into()),
            ..Settings::default()
        };
        let keys: Vec<_> = bad.check().unwrap_err().iter().map(|e| e.key).collect();
        assert_eq!(
            keys,
            [
                "timeout",
                "stall_timeout",
                "max_size",
                "attempts",
                "max_concurrent",
                "small_body",
                "spool_dir"
            ]
        );
    }
}
