//! The files with rules and credentials for origins, looked at for changes.
//!
//! Called by: `fetch`, `server`, which runs it as long as the process lives.

use std::sync::Arc;
use std::time::Duration;

use super::credentials::Credentials;
use super::proxy::Proxy;
use super::rules_in_force::RulesInForce;
use super::{Settings, SettingsError};

/// What a fetcher reads again when it changes. Clones share it.
#[derive(Clone)]
pub struct OriginFiles {
    pub(super) rules: Arc<RulesInForce>,
    pub(super) credentials: Arc<Credentials>,
    pub(super) proxy: Option<Arc<Proxy>>,
}

impl OriginFiles {
    pub(super) fn open(settings: &Settings) -> Result<Self, Vec<SettingsError>> {
        let rules = RulesInForce::new(settings.rules.clone(), settings.rules_report_only);
        match (
            rules,
            Credentials::new(settings.netrc.clone(), &settings.credentials),
        ) {
            (Ok(rules), Ok(credentials)) => Ok(Self {
                rules: Arc::new(rules),
                credentials: Arc::new(credentials),
                proxy: None,
            }),
            (rules, credentials) => {
                let wrong = rules.err().into_iter();
                Err(wrong.chain(credentials.err().unwrap_or_default()).collect())
            }
        }
    }

    /// Looks at intervals, for ever. A file that cannot be used is logged, and
    /// the old content stays in use.
    pub async fn watch(self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            self.rules.reload_if_changed();
            self.credentials.reload_if_changed();
            if let Some(proxy) = &self.proxy {
                proxy.reload_if_changed();
            }
        }
    }
}
