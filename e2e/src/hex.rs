//! Bytes as text.

use std::fmt::Write as _;

/// Lower-case hexadecimal digits.
pub fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes any write");
        text
    })
}
