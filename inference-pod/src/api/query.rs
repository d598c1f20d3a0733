//! One parameter of a query, decoded strictly: what is not UTF-8 is refused, not replaced, for the vector of another
//! text would be a wrong answer.

/// Why a parameter cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryError {
    /// It is not there.
    #[error("the query has no parameter `{0}`")]
    Missing(&'static str),
    /// It is no text.
    #[error("the query's parameter `{0}` is not percent-encoded UTF-8")]
    NotText(&'static str),
}

/// The first value of a parameter.
pub(super) fn parameter(query: Option<&str>, name: &'static str) -> Result<String, QueryError> {
    let pairs = query.unwrap_or_default().split('&');
    let value = pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
        .ok_or(QueryError::Missing(name))?;
    decode(value).ok_or(QueryError::NotText(name))
}

fn decode(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                bytes.push(16 * digit(digits[0])? + digit(digits[1])?);
                rest = after;
            }
            plain => bytes.push(plain),
        }
    }
    String::from_utf8(bytes).ok()
}

fn digit(ascii: u8) -> Option<u8> {
    char::from(ascii).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_decoded() {
        let of = |query| parameter(Some(query), "content");
        assert_eq!(of("content=Hello%2C+w%C3%B6rld"), Ok("Hello, wörld".into()));
        assert_eq!(of("a=b&content=c=d&content=e"), Ok("c=d".into()));
        assert_eq!(of("content="), Ok(String::new()));
        assert_eq!(of("content=%00"), Ok("\0".into()));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for query in ["content=%", "content=%4", "content=%zz", "content=%ff", "content=%ED%A0%80"] {
            assert_eq!(parameter(Some(query), "content"), Err(QueryError::NotText("content")), "{query}");
        }
        for query in [None, Some(""), Some("contents=a"), Some("content")] {
            assert_eq!(parameter(query, "content"), Err(QueryError::Missing("content")), "{query:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_through(text in any::<String>()) {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(decode(&encoded), Some(text));
        }
    }
}
