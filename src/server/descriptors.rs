//! File descriptors: as many as the process may have, and who gets how many.
//!
//! Connections of clients are by far the most, and whoever can reach the port
//! opens them. Were they let take all, the admin port could not be asked, the
//! cache not be dialled and no file be opened. So everybody else's part is
//! set aside first.
//! Not for: which connection gives way (`door`).
//! Called by: `run`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::backend::{part, worst_case};
use super::door::spares;
use crate::config::{Config, ReferencesUpstream};

/// Connections of the admin port at most.
const ADMIN: usize = 64;
/// What else is open: standard streams, listeners, a lock, looking up names.
const FIXED: usize = 32;
/// What a thread's runtime takes.
const PER_THREAD: usize = 4;
/// Files of the embedded cache that are read or written at a time, besides one
/// for each download.
const FILES: usize = 128;

/// Who wants, or gets, how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shares {
    /// Connections of clients.
    clients: usize,
    /// Connections to origins.
    origins: usize,
    /// `upstream.max_connections`.
    upstream: usize,
    /// Connections of the admin port.
    admin: usize,
    /// Temporary files, and those of the embedded cache.
    files: usize,
}

/// What is the same whatever the shares are.
#[derive(Debug, Clone, Copy)]
struct Setting {
    threads: usize,
    /// Servers that calls are forwarded to.
    servers: usize,
}

impl Setting {
    /// Descriptors that these shares can come to.
    fn total(self, shares: Shares) -> usize {
        let Shares {
            clients,
            origins,
            upstream,
            admin,
            files,
        } = shares;
        let to_servers = self.servers * worst_case(upstream, self.threads);
        clients + spares(clients) + origins + to_servers + admin + files
    }

    /// What can be had of `wanted` with so many descriptors: all of it if that
    /// fits. Otherwise each but the clients gets no more than a part, and they
    /// get the rest.
    fn fit(self, descriptors: usize, wanted: Shares) -> Shares {
        let fixed = FIXED + PER_THREAD * (self.threads + 1);
        let free = descriptors.saturating_sub(fixed);
        if self.total(wanted) <= free {
            return wanted;
        }
        let mut got = Shares {
            clients: 0,
            origins: wanted.origins.min(free / 8).max(1),
            admin: wanted.admin.min(free / 16).max(1),
            files: wanted.files.min(free / 8).max(1),
            upstream: wanted.upstream,
        };
        // A thread's part is at least one.
        while self.servers * worst_case(got.upstream, self.threads) > free / 4
            && part(got.upstream, self.threads) > 1
        {
            got.upstream = got
                .upstream
                .min(part(got.upstream, self.threads) * self.threads)
                - 1;
        }
        let rest = free.saturating_sub(self.total(got));
        let rest = rest.saturating_sub(spares(rest));
        got.clients = wanted.clients.min(rest).max(1);
        got
    }
}

/// Raises the limit as far as it goes; returns it if there is one.
pub(super) fn raise() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current == limit.maximum {
        return count(limit.current);
    }
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => count(limit.maximum),
        Err(error) => {
            tracing::warn!(%error, ?limit.current, "the limit of file descriptors could not be raised");
            count(limit.current)
        }
    }
}

fn count(limit: Option<u64>) -> Option<usize> {
    usize::try_from(limit?).ok()
}

/// Cuts what was configured down to what `descriptors` allow, and says so.
/// Returns how many connections the admin port may have.
pub(super) fn fit(config: &mut Config, descriptors: Option<usize>) -> usize {
    let Some(descriptors) = descriptors else {
        return ADMIN;
    };
    let references = matches!(config.references.upstream, Some(ReferencesUpstream::Url(_)));
    let servers =
        usize::from(config.upstream.is_some()) + usize::from(references) + config.routes.len();
    let setting = Setting {
        threads: config.threads,
        servers,
    };
    let wanted = Shares {
        clients: config.listen.max_connections,
        origins: config.fetch.max_connections,
        upstream: config.upstream_connections,
        admin: ADMIN,
        files: FILES + config.fetch.max_concurrent,
    };
    let got = setting.fit(descriptors, wanted);
    if got != wanted {
        tracing::warn!(
            descriptors,
            listen.max_connections = got.clients,
            fetch.max_connections = got.origins,
            upstream.max_connections = got.upstream,
            "the limit of file descriptors (ulimit -n, LimitNOFILE) allows fewer connections \
             than were configured"
        );
    }
    config.listen.max_connections = got.clients;
    config.fetch.max_connections = got.origins;
    config.upstream_connections = got.upstream;
    got.admin
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Shares = Shares {
        clients: 10_000,
        origins: 256,
        upstream: 128,
        admin: 64,
        files: 192,
    };

    #[test]
    fn nothing_is_cut_where_all_of_it_fits() {
        for threads in [1, 8, 64] {
            let setting = Setting {
                threads,
                servers: 1,
            };
            assert_eq!(setting.fit(1 << 20, WANTED), WANTED);
        }
    }

    #[test]
    fn what_is_granted_never_comes_to_more_than_there_is() {
        for (threads, servers) in [(1, 0), (1, 1), (2, 1), (4, 3), (8, 1)] {
            let setting = Setting { threads, servers };
            for descriptors in [512, 1024, 4096, 10_240] {
                let got = setting.fit(descriptors, WANTED);
                let fixed = FIXED + PER_THREAD * (threads + 1);
                let total = setting.total(got) + fixed;
                assert!(total <= descriptors, "{total} of {descriptors}: {got:?}");
                assert!(got.clients >= descriptors / 8, "{descriptors}: {got:?}");
                assert!(got.admin >= 8 && got.origins >= 8 && got.upstream >= threads);
            }
        }
    }

    #[test]
    fn with_few_each_still_has_some() {
        let setting = Setting {
            threads: 2,
            servers: 1,
        };
        let got = setting.fit(256, WANTED);
        assert!(
            got.clients > 50 && got.admin > 8 && got.upstream >= 2,
            "{got:?}"
        );
        let got = setting.fit(20, WANTED);
        assert!(got.clients >= 1 && got.admin >= 1, "{got:?}");
    }
}
