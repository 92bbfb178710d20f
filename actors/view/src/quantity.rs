//! Amounts of resources as integers: cpu in millicores, everything else in whole units (bytes, pods, devices).
//!
//! Decisions need comparable integers, not the printed form; parsing follows apimachinery's `resource.Quantity`
//! and rounds up, as `MilliValue()` and `Value()` do. What is no quantity counts as absent.

use std::collections::BTreeMap;

use serde_json::Value;

/// Amounts by resource name; cpu in millicores.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources(BTreeMap<String, i64>);

impl Resources {
    pub fn parse(map: Option<&Value>) -> Self {
        let Some(map) = map.and_then(Value::as_object) else {
            return Self::default();
        };
        Self(map.iter().filter_map(|(name, it)| Some((name.clone(), amount(name, it)?))).collect())
    }

    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn set(&mut self, name: &str, amount: i64) {
        self.0.insert(name.to_owned(), amount);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub fn add(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_insert(0);
            *sum = sum.saturating_add(*amount);
        }
    }

    pub fn subtract(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_insert(0);
            *sum = sum.saturating_sub(*amount);
        }
    }

    /// The larger of each.
    pub fn at_least(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let have = self.0.entry(name.clone()).or_insert(0);
            *have = (*have).max(*amount);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.values().all(|it| *it == 0)
    }
}

fn amount(name: &str, value: &Value) -> Option<i64> {
    let scale = if name == "cpu" { 1000 } else { 1 };
    match value {
        Value::String(text) => parse(text, scale),
        Value::Number(number) => parse(&number.to_string(), scale),
        _ => None,
    }
}

/// `text` times `scale`, rounded away from zero; saturates.
pub fn parse(text: &str, scale: i128) -> Option<i64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let (numerator, decimals) = decimal(digits)?;
    let (times, per) = factor(suffix)?;
    let over = per.checked_mul(10_i128.checked_pow(decimals)?)?;
    let product = numerator.checked_mul(times)?.checked_mul(scale)?;
    let rounded = product.div_euclid(over) + i128::from(product.rem_euclid(over) != 0);
    Some(i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX }))
}

/// `-1.25` → (-125, 2)
fn decimal(digits: &str) -> Option<(i128, u32)> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let joined = format!("{whole}{fraction}");
    let unsigned = joined.trim_start_matches(['+', '-']);
    let well_formed = !unsigned.is_empty()
        && unsigned.len() <= 30
        && unsigned.bytes().all(|it| it.is_ascii_digit());
    let decimals = u32::try_from(fraction.len()).ok()?;
    if well_formed { Some((joined.parse().ok()?, decimals)) } else { None }
}

/// What a suffix multiplies and divides by.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1_i128 << (10 * power), 1));
    let thousand = |power: u32| Some((1000_i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => thousand(1),
        "M" => thousand(2),
        "G" => thousand(3),
        "T" => thousand(4),
        "P" => thousand(5),
        "E" => thousand(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => exponent(suffix),
    }
}

fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let size = 10_i128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, size) } else { (size, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_become_integers_rounded_up() {
        for (text, scale, want) in [
            ("100m", 1000, Some(100)),
            ("0.5", 1000, Some(500)),
            ("1", 1000, Some(1000)),
            ("1.0001", 1000, Some(1001)),
            ("1Gi", 1, Some(1 << 30)),
            ("1.5Ki", 1, Some(1536)),
            ("2e3", 1, Some(2000)),
            ("2E", 1, Some(2_000_000_000_000_000_000)),
            ("1e-3", 1000, Some(1)),
            ("9999999E", 1, Some(i64::MAX)),
            ("", 1, None),
            ("many", 1, None),
            ("1 Gi", 1, None),
            ("1.2.3", 1, None),
            ("-1", 1, Some(-1)),
        ] {
            assert_eq!(parse(text, scale), want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_without_a_panic(text in ".{0,40}") {
            let _ = parse(&text, 1000);
        }
    }
}
