//! Which EmbeddingService: its namespace and its name.

use std::{fmt, str::FromStr};

/// Namespace and name of an EmbeddingService, written `<namespace>/<name>`. Both are DNS labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    namespace: String,
    name: String,
}

impl ServiceName {
    /// `None` if either part is not a DNS label, for then no such object can exist.
    pub fn new(namespace: &str, name: &str) -> Option<Self> {
        (is_label(namespace) && is_label(name))
            .then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The namespace alone.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name alone.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A text that is not `<namespace>/<name>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form <namespace>/<name>")]
pub struct InvalidServiceName;

impl FromStr for ServiceName {
    type Err = InvalidServiceName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').ok_or(InvalidServiceName)?;
        Self::new(namespace, name).ok_or(InvalidServiceName)
    }
}

/// Whether this is a label as RFC 1123 has it: what namespaces and services may be called.
pub(crate) fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    match text.as_bytes() {
        [] => false,
        [only] => plain(*only),
        [first, middle @ .., last] => {
            middle.len() <= 61
                && plain(*first)
                && plain(*last)
                && middle.iter().all(|&b| plain(b) || b == b'-')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_names() {
        for (namespace, name) in [("team", "minilm"), ("a", "b"), ("team-1", "0x"), ("team", &"x".repeat(63))]
        {
            let parsed: ServiceName = format!("{namespace}/{name}").parse().expect("two labels");
            assert_eq!((parsed.namespace(), parsed.name()), (namespace, name));
        }
    }

    #[test]
    fn other_texts_are_not() {
        let long = format!("team/{}", "x".repeat(64));
        for text in
            ["", "/", "minilm", "team/", "/minilm", "Team/minilm", "team/mini lm", "team/-a", "team/a-"]
                .into_iter()
                .chain(["team/minilm/x", "team/mini.lm", "team/münchen", "../minilm", &long])
        {
            assert_eq!(text.parse::<ServiceName>(), Err(InvalidServiceName), "{text:?}");
        }
    }
}
