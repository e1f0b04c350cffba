//! Instance names: any number of path segments, none of them a keyword of
//! resource names (REv2, `ByteStream` API).

use std::fmt;
use std::sync::Arc;

use super::Error;

const MAX_BYTES: usize = 1024;

/// A valid instance name; the empty one is the default instance.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceName(Arc<str>);

impl InstanceName {
    /// Segments that end an instance name in a resource name.
    pub const KEYWORDS: [&'static str; 7] = [
        "blobs",
        "uploads",
        "actions",
        "actionResults",
        "operations",
        "capabilities",
        "compressed-blobs",
    ];

    /// An instance name from a request.
    pub fn new(name: &str) -> Result<Self, Error> {
        if name.len() > MAX_BYTES {
            return Err(Error::InstanceName("longer than 1024 bytes"));
        }
        if name.chars().any(char::is_control) {
            return Err(Error::InstanceName("holds a control character"));
        }
        for segment in name.split('/').filter(|_| !name.is_empty()) {
            if segment.is_empty() {
                return Err(Error::InstanceName(
                    "has a leading, trailing or double slash",
                ));
            }
            if Self::KEYWORDS.contains(&segment) {
                return Err(Error::InstanceName(
                    "has a segment that is a resource name keyword",
                ));
            }
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as prefix of a resource name: empty, or ending in a slash.
    #[must_use]
    pub fn prefix(&self) -> String {
        if self.0.is_empty() {
            String::new()
        } else {
            format!("{}/", self.0)
        }
    }
}

impl Default for InstanceName {
    fn default() -> Self {
        Self("".into())
    }
}

impl fmt::Debug for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_the_protocol() {
        for good in ["", "main", "a/b/c", "blob", "müller"] {
            assert_eq!(InstanceName::new(good).unwrap().as_str(), good);
        }
        for bad in ["/", "/a", "a/", "a//b", "blobs", "a/uploads/b", "a\nb"] {
            assert!(InstanceName::new(bad).is_err(), "{bad:?}");
        }
        assert!(InstanceName::new(&"x".repeat(1025)).is_err());
    }
}
