//! Resource quantities: `100m`, `1.5Gi`, `12e6`; parsed, compared, added and printed in canonical form.
//!
//! A quantity is a whole number of nanos (10^-9) in an `i128` and the suffix family it was written in. Upstream
//! (apimachinery, api/resource) falls back to big decimals; here amounts are capped instead, at 10^28 units and
//! binary ones at 2^63-1 as upstream does. Finer fractions than nano round away from zero, as there: who asks for
//! something gets something. The canonical form has no fraction, the largest suffix that keeps it whole.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANOS: i128 = 1_000_000_000;
/// The cap: 10^28 units, which leaves room for a sum of two in an `i128`.
const NANOS_MAX: i128 = 10_i128.pow(37);
/// Binary quantities are capped at 2^63-1 units, as upstream caps them.
const BINARY_NANOS_MAX: i128 = i64::MAX as i128 * NANOS;

/// Longest text that is parsed: sign, 100 digits and a suffix are far more than any real quantity has.
const QUANTITY_BYTES_MAX: usize = 128;

/// The family of suffixes that a quantity is printed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    DecimalSi,
}

/// Equality and order look at the amount only: `1` equals `1000m`.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Number,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * NANOS, format }
    }

    pub fn from_millis(millis: i64, format: Format) -> Self {
        Self { nanos: (i128::from(millis) * 1_000_000).clamp(-NANOS_MAX, NANOS_MAX), format }
    }

    /// Whole units, rounded away from zero.
    pub fn value(self) -> i64 {
        saturating(divide_up(self.nanos, NANOS))
    }

    /// Thousandths, rounded away from zero; saturates.
    pub fn milli_value(self) -> i64 {
        saturating(divide_up(self.nanos, 1_000_000))
    }

    pub fn format(self) -> Format {
        self.format
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// Saturates at the cap. A zero takes over the other's format, as upstream's sums do.
    #[must_use]
    pub fn plus(self, other: Quantity) -> Quantity {
        Quantity {
            nanos: (self.nanos + other.nanos).clamp(-NANOS_MAX, NANOS_MAX),
            format: if self.is_zero() { other.format } else { self.format },
        }
    }

    #[must_use]
    pub fn minus(self, other: Quantity) -> Quantity {
        self.plus(Quantity { nanos: -other.nanos, format: other.format })
    }

    /// Rounded up to thousandths, the finest that resource lists keep.
    #[must_use]
    pub fn rounded_to_milli(self) -> Quantity {
        Quantity {
            nanos: (divide_up(self.nanos, 1_000_000) * 1_000_000).clamp(-NANOS_MAX, NANOS_MAX),
            ..self
        }
    }

    fn print_decimal(self, f: &mut fmt::Formatter<'_>, format: Format) -> fmt::Result {
        let (mut number, mut exponent) = (self.nanos, -9);
        let exponent_max = if format == Format::DecimalExponent { 27 } else { 18 };
        while number % 1000 == 0 && exponent < exponent_max {
            number /= 1000;
            exponent += 3;
        }
        if format == Format::DecimalExponent {
            return match exponent {
                0 => write!(f, "{number}"),
                _ => write!(f, "{number}e{exponent}"),
            };
        }
        let (_, suffix) = DECIMAL_SUFFIXES
            .iter()
            .find(|(it, _)| *it == exponent)
            .expect("exponents step by 3 from -9 to 18, and each has a suffix");
        write!(f, "{number}{suffix}")
    }

    fn print_binary(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut number, mut step) = (self.nanos / NANOS, 0);
        while number % 1024 == 0 && step + 1 < BINARY_SUFFIXES.len() {
            number /= 1024;
            step += 1;
        }
        write!(f, "{number}{}", BINARY_SUFFIXES[step])
    }
}

const DECIMAL_SUFFIXES: [(i32, &str); 10] = [
    (-9, "n"),
    (-6, "u"),
    (-3, "m"),
    (0, ""),
    (3, "k"),
    (6, "M"),
    (9, "G"),
    (12, "T"),
    (15, "P"),
    (18, "E"),
];
const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// The canonical form.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        match self.format {
            // Small or broken binary quantities print as decimal ones, so that nothing is lost.
            Format::BinarySi if self.is_whole() && self.nanos.abs() >= 1024 * NANOS => {
                self.print_binary(f)
            }
            Format::BinarySi => self.print_decimal(f, Format::DecimalSi),
            format => self.print_decimal(f, format),
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() || text.len() > QUANTITY_BYTES_MAX {
            return Err(QuantityError::Format);
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let number_end =
            rest.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || suffix.bytes().any(|it| !SUFFIX_BYTES.contains(&it)) {
            return Err(QuantityError::Format);
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(if number.is_empty() && !suffix.is_empty() {
                QuantityError::Format
            } else {
                QuantityError::Number
            });
        }
        let (base, exponent, format) = interpret(suffix).ok_or(QuantityError::Suffix)?;
        let nanos = match base {
            Base::Ten => decimal_nanos(whole, fraction, exponent),
            Base::Two => binary_nanos(whole, fraction, exponent),
        };
        let format = match format {
            Format::BinarySi if nanos > 0 && nanos < NANOS => Format::DecimalSi,
            format => format,
        };
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

const SUFFIX_BYTES: &[u8] = b"eEinumkKMGTP+-0123456789";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Two,
    Ten,
}

fn interpret(suffix: &str) -> Option<(Base, i32, Format)> {
    if let Some((exponent, _)) = DECIMAL_SUFFIXES.iter().find(|(_, it)| *it == suffix) {
        return Some((Base::Ten, *exponent, Format::DecimalSi));
    }
    if let Some(step) = BINARY_SUFFIXES.iter().skip(1).position(|it| *it == suffix) {
        return Some((Base::Two, 10 * (step as i32 + 1), Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let exponent: i64 = exponent.parse().ok()?;
    // Past these bounds every amount is the cap or one nano anyway.
    let exponent = exponent.clamp(-1000, 1000) as i32;
    Some((Base::Ten, exponent, Format::DecimalExponent))
}

/// `whole.fraction` × 10^exponent in nanos, rounded up, capped.
fn decimal_nanos(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let digits: Vec<i128> =
        whole.bytes().chain(fraction.bytes()).map(|it| i128::from(it - b'0')).collect();
    // How many digits stand before the unit of a nano.
    let kept = whole.len() as i64 + i64::from(exponent) + 9;
    let mut nanos: i128 = 0;
    for (at, digit) in digits.iter().enumerate() {
        if (at as i64) < kept {
            nanos = (nanos * 10 + digit).min(NANOS_MAX);
        } else if *digit != 0 {
            return (nanos + 1).min(NANOS_MAX);
        }
    }
    if nanos == 0 {
        return 0;
    }
    for _ in digits.len() as i64..kept {
        nanos = (nanos * 10).min(NANOS_MAX);
        if nanos == NANOS_MAX {
            break;
        }
    }
    nanos
}

/// `whole.fraction` × 2^exponent in nanos, rounded up, capped.
fn binary_nanos(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let factor = 1_i128 << exponent;
    let units =
        whole.bytes().fold(0_i128, |sum, it| (sum * 10 + i128::from(it - b'0')).min(NANOS_MAX));
    let units_nanos = units.saturating_mul(NANOS).saturating_mul(factor);
    // 18 digits of fraction are finer than a nano of an exbi; what is beyond only rounds up.
    let kept = &fraction[..fraction.len().min(18)];
    let beyond = fraction.bytes().skip(18).any(|it| it != b'0');
    let numerator = kept.bytes().fold(0_i128, |sum, it| sum * 10 + i128::from(it - b'0'));
    let denominator = 10_i128.pow(kept.len() as u32);
    // (numerator × factor) stays below 10^18 × 2^60, whose nanos would overflow: divide in two steps.
    let scaled = numerator * factor;
    let (high, low) = (scaled / denominator, scaled % denominator);
    let mut nanos = high * NANOS + divide_up(low * NANOS, denominator);
    if beyond {
        nanos += 1;
    }
    units_nanos.saturating_add(nanos).min(BINARY_NANOS_MAX)
}

/// Rounds away from zero.
fn divide_up(dividend: i128, divisor: i128) -> i128 {
    let quotient = dividend / divisor;
    match dividend % divisor {
        0 => quotient,
        _ => quotient + dividend.signum(),
    }
}

fn saturating(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// Reads a quantity out of an object, where it may be a text or a number.
pub fn of_json(value: &serde_json::Value) -> Result<Quantity, QuantityError> {
    match value {
        serde_json::Value::String(it) => it.trim().parse(),
        serde_json::Value::Number(it) => it.to_string().parse(),
        _ => Err(QuantityError::Format),
    }
}

#[cfg(test)]
mod tests;
