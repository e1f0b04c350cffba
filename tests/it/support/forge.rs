//! Asset references as somebody else writes them who may write the Action
//! Cache and knows the public format: made here from its description, by none
//! of the program's own code.

use std::time::SystemTime;

use assetgate::proto::assetgate::v1::{AssetEntry, asset_entry as wire};
use assetgate::proto::rev2;
use prost::Message as _;

use super::{Function, digest_in, digest_of};

/// Where a forged entry shall be found.
pub enum Place<'a> {
    Exact(&'a str),
    Subset(&'a str),
    Fetched(&'a str),
    Migrated(&'a str),
    Checksum,
}

/// A reference in the default instance, under SHA256.
pub struct Forged<'a> {
    pub place: Place<'a>,
    /// What it says it leads to.
    pub digest: rev2::Digest,
    /// The hash of which algorithm it claims to have, and over which bytes.
    pub claims: (Function, &'a [u8]),
    /// Those of the entry, sorted by name.
    pub qualifiers: &'a [(&'a str, &'a str)],
    /// Those of the key.
    pub key: &'a [(&'a str, &'a str)],
}

impl Forged<'_> {
    fn claim(&self) -> (String, Vec<u8>) {
        let (function, bytes) = self.claims;
        let hash = hex::decode(digest_in(function, bytes).hash).unwrap();
        (function.as_str_name().to_ascii_lowercase(), hash)
    }

    fn space(&self) -> (&'static str, wire::Space) {
        match self.place {
            Place::Exact(_) => ("E", wire::Space::Exact),
            Place::Subset(_) => ("S", wire::Space::Subset),
            Place::Fetched(_) => ("F", wire::Space::Fetched),
            Place::Migrated(_) => ("M", wire::Space::Migrated),
            Place::Checksum => ("X", wire::Space::Checksum),
        }
    }

    fn material(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut field = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        let head = [
            "asset-ref",
            "1",
            "",
            self.space().0,
            "blob",
            "",
            "SHA256",
            "0",
        ];
        head.iter().for_each(|text| field(text.as_bytes()));
        match self.place {
            Place::Checksum => {
                let (algorithm, hash) = self.claim();
                field(algorithm.as_bytes());
                field(&hash);
            }
            Place::Exact(uri) | Place::Subset(uri) | Place::Fetched(uri) | Place::Migrated(uri) => {
                field(uri.as_bytes())
            }
        }
        field(self.key.len().to_string().as_bytes());
        for (name, value) in self.key {
            field(name.as_bytes());
            field(value.as_bytes());
        }
        out
    }

    /// The digest of the Action that is the key, and its salt.
    fn action(&self) -> (rev2::Digest, Vec<u8>) {
        let salt = hex::decode(digest_of(&self.material()).hash).unwrap();
        let command = rev2::Command {
            arguments: vec!["assetgate-asset-reference".into(), "v1".into()],
            ..Default::default()
        };
        let property = rev2::platform::Property {
            name: "asset-reference".into(),
            value: "v1".into(),
        };
        let action = rev2::Action {
            command_digest: Some(digest_of(&command.encode_to_vec())),
            input_root_digest: Some(digest_of(b"")),
            salt: salt.clone().into(),
            platform: Some(rev2::Platform {
                properties: vec![property],
            }),
            ..Default::default()
        };
        (digest_of(&action.encode_to_vec()), salt)
    }

    /// The digest of the Action that is the key, and the entry.
    pub fn entry(&self) -> (rev2::Digest, rev2::ActionResult) {
        let (action, salt) = self.action();
        let (uri, source) = match self.place {
            Place::Exact(uri) | Place::Subset(uri) | Place::Migrated(uri) => {
                (uri, wire::Source::Push)
            }
            Place::Fetched(uri) => (uri, wire::Source::Fetch),
            Place::Checksum => ("https://origin.example/", wire::Source::Fetch),
        };
        let (algorithm, hash) = self.claim();
        let pairs = self.qualifiers.iter().map(|(name, value)| wire::Qualifier {
            name: (*name).into(),
            value: (*value).into(),
        });
        let entry = AssetEntry {
            version: 1,
            space: self.space().1 as i32,
            kind: wire::Kind::Blob as i32,
            digest: Some(self.digest.clone()),
            digest_function: Function::Sha256 as i32,
            key_material_hash: salt.into(),
            uri: uri.into(),
            qualifiers: pairs.collect(),
            content_time: Some(SystemTime::now().into()),
            source: source as i32,
            verified: vec![wire::VerifiedHash {
                algorithm,
                hash: hash.into(),
            }],
            ..Default::default()
        };
        let payload = prost_types::Any {
            type_url: "type.googleapis.com/assetgate.v1.AssetEntry".into(),
            value: entry.encode_to_vec(),
        };
        let result = rev2::ActionResult {
            output_files: vec![rev2::OutputFile {
                path: "asset".into(),
                digest: Some(self.digest.clone()),
                ..Default::default()
            }],
            execution_metadata: Some(rev2::ExecutedActionMetadata {
                auxiliary_metadata: vec![payload],
                ..Default::default()
            }),
            ..Default::default()
        };
        (action, result)
    }
}
