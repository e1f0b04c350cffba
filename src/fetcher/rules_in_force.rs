//! What is asked for a URI of a request, by the rules in force: the file as it
//! is now, or what it was when it could last be used.
//!
//! Keys and references never know: they are about the URI of the request.
//! Not for: what rules mean (`url_rules`).
//! Called by: `mirrors`.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::failed::Failed;
use super::target::Target;
use super::url_rules::{Decision, MAX_URL, RulesError, UrlRules};
use super::{Failure, SettingsError};
use crate::asset::Uri;
use crate::net::Reloading;
use crate::telemetry;

/// The rules for URLs, if there are any.
#[derive(Default)]
pub(super) struct RulesInForce {
    rules: Option<Arc<Reloading<UrlRules>>>,
    report_only: bool,
}

impl RulesInForce {
    pub(super) fn new(path: Option<PathBuf>, report_only: bool) -> Result<Self, SettingsError> {
        let wrong = |error: RulesError| SettingsError {
            key: "rules",
            problem: error.to_string(),
        };
        let rules = path.map(open).transpose().map_err(wrong)?;
        Ok(Self { rules, report_only })
    }

    /// Reads the file again if it changed.
    pub(super) fn reload_if_changed(&self) {
        if let Some(rules) = &self.rules {
            rules.reload_if_changed();
        }
    }

    /// What to ask for a URI, in this order; never nothing.
    pub(super) fn targets(&self, uri: &Uri) -> Result<Vec<Target>, Failed> {
        let not_found = |text| Failed::new(Failure::NotFound, text);
        let target = Target::parse(uri).map_err(not_found)?;
        let Some(rules) = &self.rules else {
            return Ok(vec![target]);
        };
        match self.decide(&rules.current(), uri, &target) {
            _ if self.report_only => Ok(vec![target]),
            Ok(None) => Ok(vec![target]),
            Ok(Some(instead)) => {
                let made = instead.into_iter().map(|other| target.instead(other));
                Ok(made.collect())
            }
            Err(failed) => Err(failed),
        }
    }

    fn decide(
        &self,
        rules: &UrlRules,
        uri: &Uri,
        target: &Target,
    ) -> Result<Option<Vec<Target>>, Failed> {
        if target.url.as_str().len() > MAX_URL {
            self.tell(uri, "unusable", "longer than URL rules look at");
            let text = format!("longer than {MAX_URL} bytes, which no URL rule can be asked about");
            return Err(Failed::new(Failure::Unusable, text));
        }
        match rules.decide(target) {
            Decision::Unchanged => Ok(None),
            Decision::Instead(made) => {
                self.tell(uri, "rewritten", "rewritten by a URL rule");
                Ok(Some(made))
            }
            Decision::Blocked(message) => {
                self.tell(uri, "blocked", "blocked by a URL rule");
                let message = message.map_or(String::new(), |text| format!(": {text}"));
                let text = format!("blocked by this server's URL rules{message}");
                Err(Failed::new(Failure::Disallowed, text))
            }
            Decision::NoUrl(line) => {
                self.tell(uri, "unusable", "rewritten to what is no URL");
                let text = format!("the URL rule in line {line} makes no URL of it");
                Err(Failed::new(Failure::Unusable, text))
            }
        }
    }

    /// Counts, and says in the log what happened, or would have.
    fn tell(&self, uri: &Uri, decision: &'static str, what: &'static str) {
        let mode = if self.report_only {
            "report_only"
        } else {
            "enforced"
        };
        metrics::counter!(
            "assetgate_origin_rule_decisions_total", "decision" => decision, "mode" => mode
        )
        .increment(1);
        if !self.report_only {
            tracing::debug!(asset.uri = %uri, "{what}");
        } else if let Some(suppressed) = telemetry::may_log(what) {
            tracing::info!(asset.uri = %uri, suppressed, "would be {what}");
        }
    }
}

/// A failure that says who was asked, if a rule chose.
pub(super) fn told(asked: Option<&str>, mut failed: Failed) -> Failed {
    if let Some(origin) = asked {
        failed.text = format!("{} (asked {origin}, as a URL rule says)", failed.text);
    }
    failed
}

fn open(path: PathBuf) -> Result<Arc<Reloading<UrlRules>>, RulesError> {
    let at_start = OnceLock::new();
    Reloading::new("URL rules", vec![path.clone()], move || {
        let rules = UrlRules::read(&path)?;
        let hold = rules.hold_credentials();
        let held = *at_start.get_or_init(|| hold);
        match hold && !held {
            true => Err(RulesError::NewCredentials),
            false => Ok(rules),
        }
    })
}
