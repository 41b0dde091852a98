//! Numbers as people read them.

/// A measured number with `digits` significant digits (at least 1): plain from 0.001 to 9999, with an exponent otherwise.
/// `0`, `inf`, `-inf` and `NaN` are written so.
#[must_use]
pub fn significant(value: f64, digits: usize) -> String {
    let digits = digits.max(1);
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    let scientific = format!("{value:.*e}", digits - 1);
    // The exponent after rounding, so that 999.96 with four digits counts as 1000.
    let exponent: i32 = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    if !(-3..4).contains(&exponent) {
        return scientific;
    }
    let whole = usize::try_from(exponent.max(0)).unwrap_or(0) + 1;
    let leading_zeros = usize::try_from((-exponent).max(0)).unwrap_or(0);
    format!("{value:.*}", (digits + leading_zeros).saturating_sub(whole))
}

/// 12,345,678 for 12345678.
#[must_use]
pub fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_digits_are_four_digits() {
        let cases = [
            (0.0, "0"),
            (1.0, "1.000"),
            (-12.3456, "-12.35"),
            (999.96, "1000"),
            (9999.4, "9999"),
            (9999.6, "1.000e4"),
            (0.001_234_56, "0.001235"),
            (0.000_999_96, "0.001000"),
            (0.000_12, "1.200e-4"),
            (6.02e23, "6.020e23"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in cases {
            assert_eq!(significant(value, 4), text);
        }
        assert_eq!(significant(1234.0, 1), "1234", "digits before the point are never dropped");
    }

    #[test]
    fn groups_of_three() {
        assert_eq!(["0", "999", "1,000", "12,345,678"], [0, 999, 1000, 12_345_678].map(thousands).each_ref().map(String::as_str));
    }
}
