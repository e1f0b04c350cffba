//! The cache behind this server: a remote one, or the embedded one.
//!
//! Not for: what is done with it.
//! Called by: `assembly`, `readiness`.

use std::convert::Infallible;

use anyhow::Context as _;
use tonic::body::Body;
use tower::ServiceExt;

use crate::config::Config;
use crate::embedded::Embedded;
use crate::forward::Target;
use crate::net::tls::{ClientFiles, ClientTls};
use crate::upstream::{Board, Endpoint, Pool, PoolSettings, Upstream};

/// Which cache it is. Clones share it.
#[derive(Clone)]
pub(super) enum Backend {
    /// One that others run.
    Remote(Box<PoolSettings>),
    /// Ours.
    Embedded(Embedded),
}

/// A backend as one runtime uses it: its connections live there.
pub(super) struct Near {
    /// For our own calls.
    pub(super) upstream: Upstream,
    /// For forwarded ones, over the same connections.
    pub(super) target: Target,
}

impl Backend {
    /// The configured one. Blocks while the embedded cache reads its files;
    /// a remote one need not be up.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        match &config.upstream {
            Some(upstream) => remote(upstream),
            None => {
                let settings = crate::embedded::Settings {
                    dir: config.embedded.dir.clone(),
                    max_size: config.embedded.max_size,
                };
                Ok(Self::Embedded(Embedded::open(settings)?))
            }
        }
    }

    /// For use on the current runtime.
    pub(super) fn near(&self) -> Near {
        match self {
            Self::Remote(settings) => {
                let pool = Pool::new((**settings).clone());
                Near {
                    upstream: pool.clone().into_upstream(),
                    target: Target::Pool(pool),
                }
            }
            Self::Embedded(embedded) => {
                let routes = embedded.routes().prepare();
                let calls = ServiceExt::<http::Request<Body>>::map_err(
                    routes.clone(),
                    |never: Infallible| match never {},
                );
                Near {
                    upstream: Upstream::new(calls),
                    target: Target::Routes(routes),
                }
            }
        }
    }

    /// How the connections to a remote cache are.
    pub(super) fn board(&self) -> Option<&Board> {
        match self {
            Self::Remote(settings) => Some(&settings.board),
            Self::Embedded(_) => None,
        }
    }

    /// The upstream's TLS files, which may change.
    pub(super) fn tls(&self) -> Option<std::sync::Arc<ClientTls>> {
        match self {
            Self::Remote(settings) => settings.tls.clone(),
            Self::Embedded(_) => None,
        }
    }
}

fn remote(upstream: &crate::config::Upstream) -> anyhow::Result<Backend> {
    let endpoints = upstream.urls.clone();
    let tls = endpoints.iter().any(Endpoint::tls);
    let mut settings = PoolSettings::new(endpoints);
    if tls {
        let files = ClientFiles {
            ca: upstream.ca.clone(),
            identity: upstream.client_identity.clone(),
        };
        settings.tls = Some(ClientTls::client(files).context("TLS to the cache")?);
    }
    if let Some(name) = &upstream.server_name {
        settings = settings.with_server_name(name)?;
    }
    if let Some(authority) = &upstream.authority {
        settings.authority = Some(authority.parse().context("upstream.authority")?);
    }
    Ok(Backend::Remote(Box::new(settings)))
}
