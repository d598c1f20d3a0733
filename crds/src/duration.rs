//! Durations as Kubernetes writes them.

use std::{borrow::Cow, fmt, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration in the form of GEP-2257, such as `200ms`, `5m` or `1h30m`: one to four numbers of up to five digits, each
/// with a unit of h, m, s or ms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(String);

/// A text that is no duration in the form of GEP-2257.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration: write numbers with units h, m, s or ms, as in 1h30m or 200ms")]
pub struct InvalidDuration(String);

impl Duration {
    /// From its text, which is checked when it is [parsed](Self::parse) and, before that, by the API server.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The length of time that is meant.
    ///
    /// # Errors
    /// If the text has another form.
    pub fn parse(&self) -> Result<time::Duration, InvalidDuration> {
        let invalid = || InvalidDuration(self.0.clone());
        let (mut rest, mut total, mut parts) = (self.0.as_str(), time::Duration::ZERO, 0);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
            let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
            let unit_end =
                rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
            let milliseconds = match &rest[digits..unit_end] {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1_000,
                "ms" => 1,
                _ => return Err(invalid()),
            };
            parts += 1;
            if digits > 5 || parts > 4 {
                return Err(invalid());
            }
            total += time::Duration::from_millis(number * milliseconds);
            rest = &rest[unit_end..];
        }
        if parts == 0 { Err(invalid()) } else { Ok(total) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The length bounds the cost of rules in CEL: four parts of five digits and a unit of two letters.
        json_schema!({"type": "string", "maxLength": 28, "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"})
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn milliseconds(text: &str) -> Option<u128> {
        Duration::new(text).parse().ok().map(|d| d.as_millis())
    }

    #[test]
    fn units_add_up() {
        assert_eq!(milliseconds("200ms"), Some(200));
        assert_eq!(milliseconds("1h30m"), Some(5_400_000));
        assert_eq!(milliseconds("10m5s1ms"), Some(605_001));
        assert_eq!(milliseconds("0s"), Some(0));
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["", "5", "m", "1.5s", "-1s", "1d", "123456s", "1h1h1h1h1h", "5 m", "5m ", "٣s"] {
            assert_eq!(milliseconds(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>()) {
            let _ = Duration::new(&text).parse();
        }

        #[test]
        fn what_the_schema_allows_is_parsed(text in "([0-9]{1,5}(h|m|s|ms)){1,4}") {
            prop_assert!(Duration::new(&text).parse().is_ok());
        }
    }
}
