//! Sizes on the command line, as Kubernetes writes its quantities.

/// Bytes of a unit.
const UNITS: [(&str, f64); 15] = [
    ("Ki", (1_u64 << 10) as f64),
    ("Mi", (1_u64 << 20) as f64),
    ("Gi", (1_u64 << 30) as f64),
    ("Ti", (1_u64 << 40) as f64),
    ("Pi", (1_u64 << 50) as f64),
    ("Ei", (1_u64 << 60) as f64),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
];

/// Reads bytes such as `2Gi`, `500M`, `1e9` or `1048576`, up to whole ones.
///
/// # Errors
/// Says what a size looks like.
pub fn bytes(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "write a number of bytes, with or without a unit, as in 2Gi, 500M or 1048576";
    // Else "inf" and "nan" were numbers.
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '+')) {
        return Err(FORM);
    }
    let with_unit = || {
        let (number, unit) = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
        Some(number.parse::<f64>().ok()? * unit)
    };
    let number = text.parse().ok().or_else(with_unit).ok_or(FORM)?;
    if (0. ..=u64::MAX as f64).contains(&number) { Ok(number.ceil() as u64) } else { Err(FORM) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("1048576", 1 << 20),
            ("1Ki", 1024),
            ("1.5Gi", 3 << 29),
            ("500M", 500_000_000),
            ("12k", 12_000),
            ("1e3", 1000),
            ("1E3", 1000),
            ("1E", 10_u64.pow(18)),
            ("1500m", 2),
            ("+0", 0),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "Gi", "-1", "1 Gi", "1gi", "1KB", "inf", "nan", "1e99", "99Ei"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
