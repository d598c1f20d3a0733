//! Durations on the command line: a whole number and its unit.

use std::time::Duration;

/// Reads a duration such as `25s`, `1500ms` or `10m`.
///
/// # Errors
/// Says what a duration looks like.
pub fn parse(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "write a whole number and its unit, ms, s or m, as in 25s";
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(FORM)?;
    let number: u32 = text[..digits].parse().map_err(|_| FORM)?;
    let unit = match &text[digits..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        _ => return Err(FORM),
    };
    Ok(unit * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in [("25s", 25_000), ("1500ms", 1500), ("10m", 600_000), ("0s", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "25", "s", "-1s", "1.5s", "1h", "1 s", "99999999999s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
