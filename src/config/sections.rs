//! Texts become settings, section by section.
//!
//! A section that cannot be read whole still reads its other keys, so that
//! all mistakes are noted in one pass.
//! Not for: contradictions (`checks`).
//! Called by: `config`.

use super::layers::Reader;
use super::settings::{
    Compat, Config, Drain, Embedded, Errors, Fetch, Limits, Listen, ListenTls, Log, Probe, Push,
    References, Upstream,
};
use super::values as v;

/// Reads every key there is.
pub(super) fn read(r: &mut Reader<'_>) -> Config {
    Config {
        allow_anonymous: r.one("allow_anonymous", v::truth),
        core_dumps: r.one("core_dumps", v::truth),
        threads: r.one("threads", v::count),
        upstream_connections: r.one("upstream.max_connections", v::upstream_connections),
        upstream_zstd: r.one("upstream.zstd", v::automatic),
        listen: listen(r),
        admin: r.one("admin.address", v::admin_address),
        admin_hosts: r.list("admin.hosts", v::parsed),
        upstream: upstream(r),
        routes: r.list("route", v::route),
        embedded: Embedded {
            dir: r.one("embedded.dir", v::path),
            max_size: r.one("embedded.max_size", v::size),
        },
        fetch: fetch(r),
        errors: Errors {
            channel: r.one("errors.channel", v::error_channel),
            grpc_clients: r.list("errors.grpc_clients", v::name),
        },
        push: Push {
            enabled: r.one("push.enabled", v::truth),
            instances: r.list("push.instances", v::parsed),
            allow_uris: r.list("push.allow_uris", v::parsed),
            deny_uris: r.list("push.deny_uris", v::parsed),
        },
        namespace: r.maybe("references.namespace", v::name).unwrap_or_default(),
        references: References {
            upstream: r.maybe("references.upstream", v::references_upstream),
            mac_key: r.maybe("references.mac_key", v::path),
            max_age: r.maybe("references.max_age", v::positive_duration),
            subset_max: r.one("references.subset_max", v::subset_max),
            projections: r.list("references.subset_projections", v::projection),
        },
        compat: Compat {
            bb_remote_asset: r.one("compat.bb_remote_asset", v::truth),
            trust_unsigned: r.one("compat.trust_unsigned", v::truth),
            platform: r.list("compat.bb_remote_asset_platform", v::property),
        },
        probe: Probe {
            enabled: r.one("probe.enabled", v::truth),
            instances: r.list("probe.instances", v::instance_name),
            interval: r.one("probe.interval", v::duration),
            require: r.list("probe.require", v::condition),
        },
        limits: Limits {
            received_memory: r.one("limits.received_memory", v::received_memory),
        },
        drain: Drain {
            timeout: r.one("drain.timeout", v::duration),
            delay: r.one("drain.delay", v::duration),
        },
        log: Log {
            format: r.one("log.format", v::log_format),
            level: r.one("log.level", v::log_level),
        },
    }
}

/// Half a TLS set-up counts as none here; `checks` reports it.
fn listen(r: &mut Reader<'_>) -> Listen {
    let cert = r.maybe("listen.tls.cert", v::path);
    let key = r.maybe("listen.tls.key", v::path);
    let client_ca = r.maybe("listen.tls.client_ca", v::path);
    Listen {
        address: r.one("listen.address", v::address),
        socket_mode: r.one("listen.socket_mode", v::mode),
        max_connections: r.one("listen.max_connections", v::count),
        max_connections_per_client: r.maybe("listen.max_connections_per_client", v::count),
        fronts: r.list("listen.fronts", v::network),
        tls: cert.zip(key).map(|(cert, key)| ListenTls {
            cert,
            key,
            client_ca,
        }),
    }
}

fn upstream(r: &mut Reader<'_>) -> Option<Upstream> {
    let cert = r.maybe("upstream.client_cert", v::path);
    let key = r.maybe("upstream.client_key", v::path);
    let upstream = Upstream {
        urls: r.list("upstream.url", v::upstream_url),
        ca: r.maybe("upstream.ca", v::path),
        client_identity: cert.zip(key),
        server_name: r.maybe("upstream.server_name", v::server_name),
        authority: r.maybe("upstream.authority", v::authority_header),
        credential: r.maybe("upstream.credential", v::path),
        credential_in_clear: r.one("upstream.credential_in_clear", v::truth),
    };
    (!upstream.urls.is_empty()).then_some(upstream)
}

fn fetch(r: &mut Reader<'_>) -> Fetch {
    Fetch {
        timeout: r.one("fetch.timeout", v::positive_duration),
        max_timeout: r.one("fetch.max_timeout", v::positive_duration),
        connect_timeout: r.one("fetch.connect_timeout", v::positive_duration),
        first_byte_timeout: r.one("fetch.first_byte_timeout", v::positive_duration),
        stall_timeout: r.one("fetch.stall_timeout", v::positive_duration),
        attempts: r.one("fetch.attempts", v::attempts),
        retry_delay: r.one("fetch.retry_delay", v::positive_duration),
        max_size: r.one("fetch.max_size", v::size),
        allow_cidr: r.list("fetch.allow_cidr", v::network),
        deny_cidr: r.list("fetch.deny_cidr", v::network),
        ca: r.maybe("fetch.ca", v::path),
        proxy: r.maybe("fetch.proxy", v::parsed),
        proxy_credential: r.maybe("fetch.proxy_credential", v::path),
        no_proxy: r.list("fetch.no_proxy", v::parsed),
        rules: r.maybe("fetch.rules", v::path),
        rules_report_only: r.one("fetch.rules_report_only", v::truth),
        netrc: r.maybe("fetch.netrc", v::path),
        credentials: r.list("fetch.credentials", v::parsed),
        max_concurrent: r.one("fetch.max_concurrent", v::count),
        max_per_host: r.one("fetch.max_per_host", v::count),
        rate_per_host: r.maybe("fetch.rate_per_host", v::parsed),
        max_connections: r.one("fetch.max_connections", v::count),
        memory: r.one("fetch.memory", v::size_from_1_mib),
        spool_dir: r.maybe("fetch.spool_dir", v::path),
        spool_size: r.one("fetch.spool_size", v::size_from_1_mib),
        instances: r.list("fetch.instances", v::parsed),
        unpinned: r.list("fetch.unpinned", v::parsed),
        key_headers: r.list("fetch.key_headers", v::parsed),
        secret_parameters: r.list("fetch.secret_parameters", v::parsed),
        share_private: r.one("fetch.share_private", v::truth),
    }
}
