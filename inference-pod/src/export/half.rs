//! 16-bit floats.

/// The nearest one, of two equally near that whose last bit is zero; what is too large is infinite. As its bits.
pub(super) fn half(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00; // not a number
    }
    // From 65520 on, which is half way between the largest and what would come next.
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    // Below 2^-14 numbers lie 2^-24 apart. Their sum with 0.5, whose last bit counts 2^-24, is rounded just so.
    if magnitude < 0x3880_0000 {
        let rounded = (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits();
        return sign | rounded as u16;
    }
    // Thirteen bits go. A carry runs into the exponent, as it should.
    let odd = magnitude >> 13 & 1;
    let rounded = (magnitude + 0x0fff + odd) >> 13;
    sign | (rounded - ((127 - 15) << 10)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the bits mean.
    fn value(bits: u16) -> f64 {
        let sign = if bits & 0x8000 == 0 { 1. } else { -1. };
        let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
        match exponent {
            0 => sign * fraction * 2f64.powi(-24),
            31 if fraction == 0. => sign * f64::INFINITY,
            31 => f64::NAN,
            _ => sign * (1. + fraction / 1024.) * 2f64.powi(exponent - 15),
        }
    }

    #[test]
    fn every_number_of_sixteen_bits_is_itself() {
        for bits in 0..=u16::MAX {
            let x = value(bits);
            if x.is_nan() {
                assert!(value(half(x as f32)).is_nan());
            } else {
                assert_eq!(half(x as f32), bits, "{x}");
            }
        }
    }

    proptest! {
        #[test]
        fn none_is_nearer(x in prop_oneof![any::<f32>(), -70_000f32..70_000., -1e-4f32..1e-4]) {
            prop_assume!(x.is_finite() && x.abs() < 65_504.);
            let bits = half(x);
            let far = |bits: u16| (value(bits) - f64::from(x)).abs();
            // The next ones by magnitude lie beside each other as bits do.
            for other in [bits.wrapping_add(1), bits.wrapping_sub(1)] {
                if (other ^ bits) & 0x8000 == 0 && value(other).is_finite() {
                    prop_assert!(far(bits) < far(other) || far(bits) == far(other) && bits & 1 == 0, "{x}");
                }
            }
        }
    }
}
