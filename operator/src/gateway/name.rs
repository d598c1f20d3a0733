//! Which EmbeddingService: its namespace and its name.

use std::{cmp::Ordering, fmt, str::FromStr, sync::Arc};

/// Namespace and name of an EmbeddingService, written `<namespace>/<name>`. Both are DNS labels. Clones share the text, for
/// each request has some.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServiceName {
    text: Arc<str>,
    /// Bytes of the namespace; behind it stands the slash.
    namespace: u8,
}

impl ServiceName {
    /// `None` if either part is not a DNS label, for then no such object can exist.
    pub fn new(namespace: &str, name: &str) -> Option<Self> {
        let length = u8::try_from(namespace.len()).ok()?;
        (is_label(namespace) && is_label(name))
            .then(|| Self { text: [namespace, name].join("/").into(), namespace: length })
    }

    /// The namespace alone.
    pub fn namespace(&self) -> &str {
        &self.text[..usize::from(self.namespace)]
    }

    /// The name alone.
    pub fn name(&self) -> &str {
        &self.text[usize::from(self.namespace) + 1..]
    }

    /// Both, as `<namespace>/<name>`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// By namespace, and within that by name.
impl Ord for ServiceName {
    fn cmp(&self, other: &Self) -> Ordering {
        // Each request looks for a name that is there.
        if self.text == other.text {
            return Ordering::Equal;
        }
        (self.namespace(), self.name()).cmp(&(other.namespace(), other.name()))
    }
}

impl PartialOrd for ServiceName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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

    /// Not by the text: a dash comes before a slash.
    #[test]
    fn services_of_a_namespace_stand_together() {
        let mut names: Vec<ServiceName> =
            ["a-b/c", "a/d", "a/b-c", "a/b"].map(|name| name.parse().expect("two labels")).into();
        names.sort();
        assert_eq!(
            names.iter().map(ServiceName::as_str).collect::<Vec<_>>(),
            ["a/b", "a/b-c", "a/d", "a-b/c"]
        );
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
