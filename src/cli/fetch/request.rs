//! The flags as a request, and the way to the server; everything that is wrong
//! with them is told at once, and nothing told holds a value that may be secret.
//!
//! Called by: `cli::fetch`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use tonic::metadata::MetadataMap;

use super::{ADMIN, Asked, Server};
use crate::api;
use crate::asset::{
    AssetKind, BAZEL_CANONICAL_ID, CHECKSUM_SRI, SecretParameter, Uri, declare_secret_parameters,
};
use crate::digest::{DigestFunction, InstanceName, Scope};
use crate::net::tls::{ClientFiles, ClientTls};
use crate::proto::asset::{FetchBlobRequest, Qualifier};
use crate::upstream::{CallContext, Credential, Endpoint, Pool, PoolSettings, Upstream};

/// The server's variable for `fetch.secret_parameters`.
const SECRET_PARAMETERS: &str = "ASSETGATE__FETCH__SECRET_PARAMETERS";

/// Files of header lines are as small as credentials.
const MAX_FILE: u64 = 8 << 10;

/// What is asked of whom.
pub(super) struct Prepared {
    pub(super) request: FetchBlobRequest,
    pub(super) scope: Scope,
    pub(super) uris: Vec<Uri>,
    /// What the server is shown.
    pub(super) context: CallContext,
    pub(super) admin: Option<http::Uri>,
    pool: PoolSettings,
    /// Values for the origins, which nothing printed may hold either.
    origins: CallContext,
}

impl Prepared {
    /// All that is wrong with the flags, or what they mean.
    pub(super) fn of(asked: &Asked) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut keep = |problem: String| problems.push(problem);
        // Before anything is made of a URL.
        match secret_parameters(&asked.secret_parameters) {
            Ok(names) => declare_secret_parameters(&names),
            Err(problem) => keep(problem),
        }
        let server = &asked.server;
        let endpoint = endpoint(server).map_err(&mut keep).ok();
        let local = endpoint.as_ref().is_some_and(is_local);
        let admin = admin(server, local).map_err(&mut keep).ok();
        let context = context(&server.headers).map_err(&mut keep).ok();
        let headers = origin_headers(&asked.origin_headers).map_err(&mut keep);
        let headers = headers.unwrap_or_default();
        let function = function(server.digest_function.as_deref()).map_err(&mut keep);
        let instance = InstanceName::new(&server.instance);
        // What is wrong with it is told with the rest of the request.
        let instance = instance.ok();
        let pool = endpoint.and_then(|endpoint| pool(server, endpoint).map_err(&mut keep).ok());
        let request = request(asked, &headers, function.unwrap_or(DigestFunction::Sha256));
        if let Err(violations) = api::read_fetch(AssetKind::Blob, request.clone()) {
            let told = violations.iter().map(|(field, why)| flag(field, why));
            problems.extend(told.collect::<BTreeSet<_>>());
        }
        match (function, instance, admin, context, pool) {
            (Ok(function), Some(instance), Some(admin), Some(context), Some(pool))
                if problems.is_empty() =>
            {
                Ok(Self {
                    uris: asked.urls.iter().cloned().map(Uri::new).collect(),
                    scope: Scope::new(instance, function),
                    origins: secrets(&headers),
                    request,
                    context,
                    admin,
                    pool,
                })
            }
            _ => Err(problems),
        }
    }

    /// The way to the server; nothing is opened yet. Must be called on the
    /// runtime.
    pub(super) fn connect(&self) -> Upstream {
        Pool::new(self.pool.clone()).into_upstream().vetted()
    }

    /// Without what must not be shown.
    pub(super) fn redact(&self, text: &str) -> String {
        self.origins.redact(&self.context.redact(text))
    }

    /// The URLs without their secrets, to be pasted.
    pub(super) fn shown_urls(&self) -> Vec<String> {
        self.uris.iter().map(shown).collect()
    }
}

/// A URI without its secrets.
pub(super) fn shown(uri: &Uri) -> String {
    String::from_utf8_lossy(&uri.key_bytes()).into_owned()
}

/// What the server's rules say, in terms of the flags.
fn flag(field: &str, why: &str) -> String {
    match field.split(['[', '.']).next() {
        Some("uris") => format!("URL: {why}"),
        Some("instance_name") => format!("--instance: {why}"),
        Some("timeout") => format!("--timeout: {why}"),
        Some("digest_function") => format!("--digest-function: {why}"),
        _ if why.contains("http_header") => format!("--origin-header: {why}"),
        _ => format!("--integrity or --canonical-id: {why}"),
    }
}

/// The server's setting, by a flag or by the variable it has there: what the
/// server takes for a secret must not be printed here either.
fn secret_parameters(given: &[String]) -> Result<Vec<SecretParameter>, String> {
    let (place, names) = match given {
        [] => {
            let value = std::env::var(SECRET_PARAMETERS).unwrap_or_default();
            let names = value.split(',').map(str::trim).filter(|n| !n.is_empty());
            (SECRET_PARAMETERS, names.map(str::to_owned).collect())
        }
        given => ("--secret-parameter", given.to_vec()),
    };
    let parsed = names.iter().map(|name| name.parse::<SecretParameter>());
    let parsed: Result<Vec<_>, _> = parsed.collect();
    parsed.map_err(|problem| format!("{place}: {problem}"))
}

fn endpoint(server: &Server) -> Result<Endpoint, String> {
    let endpoint = server.endpoint.parse::<Endpoint>();
    endpoint.map_err(|error| format!("--endpoint: {error}"))
}

/// Whether it runs on this machine, so that its admin port can be reached.
fn is_local(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Tcp { host, .. } => {
            let address = host.parse::<std::net::IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
        Endpoint::Unix(_) | Endpoint::Memory(_) => true,
    }
}

fn admin(server: &Server, local: bool) -> Result<Option<http::Uri>, String> {
    let text = match server.admin.as_deref() {
        None if local => ADMIN,
        None | Some("off") => return Ok(None),
        Some(text) => text,
    };
    let wrong = || "--admin: write http://HOST:PORT, or off".to_owned();
    let url: http::Uri = text.parse().map_err(|_| wrong())?;
    let user = url.authority().is_some_and(|a| a.as_str().contains('@'));
    match url.scheme_str() {
        Some("http") if url.host().is_some() && !user => Ok(Some(url)),
        _ => Err(wrong()),
    }
}

fn pool(server: &Server, endpoint: Endpoint) -> Result<PoolSettings, String> {
    let tls = endpoint.tls();
    let mut settings = PoolSettings::new(vec![endpoint]);
    let identity = server.client_cert.clone().zip(server.client_key.clone());
    if tls {
        let ca = server.ca.clone();
        let tls = ClientTls::client(ClientFiles { ca, identity });
        settings.tls = Some(tls.map_err(|error| error.to_string())?);
    } else if server.ca.is_some() || identity.is_some() {
        return Err("--ca and --client-cert are for an --endpoint with grpcs://".to_owned());
    }
    Ok(settings)
}

fn function(name: Option<&str>) -> Result<DigestFunction, String> {
    let Some(name) = name else {
        return Ok(DigestFunction::Sha256);
    };
    let all = DigestFunction::all().iter().copied();
    let all: Vec<_> = all.filter(|f| f.is_computable()).collect();
    let found = all.iter().find(|f| f.name().eq_ignore_ascii_case(name));
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|f| f.name()).collect();
        format!("--digest-function: one of {}", names.join(", "))
    })
}

/// The lines of a flag that is a line or `@FILE`.
fn lines(flag: &str, given: &str) -> Result<SecretString, String> {
    let Some(path) = given.strip_prefix('@') else {
        return Ok(SecretString::from(given.to_owned()));
    };
    let path = Path::new(path);
    let read = || -> std::io::Result<String> {
        if std::fs::metadata(path)?.len() > MAX_FILE {
            return Err(std::io::Error::other("the file is larger than 8 KiB"));
        }
        std::fs::read_to_string(path)
    };
    let text = read().map_err(|error| format!("{flag}: {}: {error}", path.display()))?;
    Ok(SecretString::from(text))
}

/// Metadata of the calls.
fn context(headers: &[String]) -> Result<CallContext, String> {
    let mut text = String::new();
    for (index, given) in headers.iter().enumerate() {
        // Each alone first, so that the number told is that of the flag.
        let some = lines("--header", given)?;
        let which = format!("--header {}", index + 1);
        Credential::parse(&some).map_err(|error| format!("{which}: {error}"))?;
        text.push_str(some.expose_secret());
        text.push('\n');
    }
    if headers.is_empty() {
        return Ok(CallContext::default());
    }
    let all = Credential::parse(&SecretString::from(text));
    let all = all.map_err(|error| format!("--header: {error}"))?;
    Ok(CallContext::of_credential(&all))
}

/// Names and values for the origins.
fn origin_headers(given: &[String]) -> Result<Vec<(String, String)>, String> {
    let mut headers = Vec::new();
    for given in given {
        for line in lines("--origin-header", given)?.expose_secret().lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = "--origin-header: write NAME: VALUE, as in `Accept: text/plain`";
            let (name, value) = line.split_once(':').ok_or(wrong)?;
            let legal = name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            if name.is_empty() || !legal {
                return Err(wrong.to_owned());
            }
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    Ok(headers)
}

/// For [`CallContext::redact`] only.
fn secrets(headers: &[(String, String)]) -> CallContext {
    let mut map = MetadataMap::new();
    for (index, (_, value)) in headers.iter().enumerate() {
        let name = format!("header-{index}");
        let key = tonic::metadata::AsciiMetadataKey::from_bytes(name.as_bytes());
        if let (Ok(key), Ok(value)) = (key, value.parse()) {
            map.insert(key, value);
        }
    }
    CallContext::from_caller(&map)
}

fn request(
    asked: &Asked,
    headers: &[(String, String)],
    function: DigestFunction,
) -> FetchBlobRequest {
    let named = [
        (CHECKSUM_SRI, &asked.integrity),
        (BAZEL_CANONICAL_ID, &asked.canonical_id),
    ];
    let named = named
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
    let headers = headers
        .iter()
        .map(|(name, value)| (format!("http_header:{name}"), value.clone()));
    let qualifiers = named
        .chain(headers)
        .map(|(name, value)| Qualifier { name, value });
    FetchBlobRequest {
        instance_name: asked.server.instance.clone(),
        uris: asked.urls.iter().cloned().map(Into::into).collect(),
        qualifiers: qualifiers.collect(),
        // The same each time, so that a repeated call joins.
        timeout: asked.timeout.try_into().ok(),
        digest_function: function.to_wire(),
        ..Default::default()
    }
}

/// Where a file is to be, and what it is called there.
pub(super) fn place(path: &Path) -> (PathBuf, String) {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    (directory, path.display().to_string())
}
