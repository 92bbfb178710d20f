//! Whether one JSON value decodes into a scalar of the API.
//!
//! Types that decode themselves in Go (quantities, times, int-or-string, bytes) answer with texts of their own, which
//! name no field.

use crate::schema::Scalar;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value};

/// Why a value does not decode.
pub(super) enum Refusal {
    /// It has this JSON type, which its field has not.
    Type(String),
    /// Its own decoder says so.
    Message(String),
}

pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

pub(super) fn check(scalar: Scalar, value: &Value) -> Result<(), Refusal> {
    match (scalar, value) {
        (Scalar::Any, _)
        | (Scalar::Object, Value::Object(_))
        | (Scalar::Boolean, Value::Bool(_))
        | (Scalar::Text, Value::String(_))
        | (Scalar::Double, Value::Number(_))
        | (Scalar::IntOrString, Value::String(_)) => Ok(()),
        (Scalar::Int32, Value::Number(number)) => {
            integer(number, i64::from(i32::MIN)..=i64::from(i32::MAX))
        }
        (Scalar::Int64, Value::Number(number)) => integer(number, i64::MIN..=i64::MAX),
        (Scalar::Bytes, Value::String(text)) => bytes(text),
        (Scalar::Quantity, Value::String(text)) => quantity(text.trim()),
        (Scalar::Quantity, Value::Number(number)) => quantity(&number.to_string()),
        (Scalar::Quantity, _) => Err(message(QUANTITY_FORMAT)),
        (Scalar::Time, Value::String(text)) => time(text, Fraction::Optional),
        (Scalar::MicroTime, Value::String(text)) => time(text, Fraction::Micro),
        (Scalar::Time | Scalar::MicroTime, _) => Err(self_decoded(json_type(value), "string")),
        (Scalar::IntOrString, Value::Number(number)) => {
            integer(number, i64::from(i32::MIN)..=i64::from(i32::MAX))
                .map_err(|_| self_decoded(&format!("number {number}"), "int32"))
        }
        (Scalar::IntOrString, _) => Err(self_decoded(json_type(value), "int32")),
        _ => Err(Refusal::Type(json_type(value).to_owned())),
    }
}

fn message(text: &str) -> Refusal {
    Refusal::Message(text.to_owned())
}

fn self_decoded(found: &str, go_type: &str) -> Refusal {
    Refusal::Message(format!("json: cannot unmarshal {found} into Go value of type {go_type}"))
}

fn integer(number: &Number, range: std::ops::RangeInclusive<i64>) -> Result<(), Refusal> {
    match number.as_i64() {
        Some(value) if range.contains(&value) => Ok(()),
        _ => Err(Refusal::Type(format!("number {number}"))),
    }
}

fn bytes(text: &str) -> Result<(), Refusal> {
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&compact) {
        Ok(_) => Ok(()),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => compact.len() / 4 * 4,
            };
            Err(Refusal::Message(format!("illegal base64 data at input byte {at}")))
        }
    }
}

const QUANTITY_FORMAT: &str = "quantities must match the regular expression \
     '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

const QUANTITY_SUFFIXES: [&str; 17] =
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "K"];

/// Only the form; what a quantity is worth is known by kactor-objects.
fn quantity(text: &str) -> Result<(), Refusal> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (digits, suffix) = unsigned.split_at(end);
    if digits.is_empty() || !suffix.chars().all(|c| "eEinumkKMGTP+-0123456789".contains(c)) {
        return Err(message(QUANTITY_FORMAT));
    }
    if digits.matches('.').count() > 1 || digits == "." {
        return Err(message(QUANTITY_FORMAT));
    }
    let exponent = suffix
        .strip_prefix(['e', 'E'])
        .map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest))
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    match exponent || (suffix != "K" && QUANTITY_SUFFIXES.contains(&suffix)) {
        true => Ok(()),
        false => Err(message("unable to parse quantity's suffix")),
    }
}

enum Fraction {
    Optional,
    Micro,
}

/// RFC 3339 as Go's time.Parse reads it, with its complaint.
fn time(text: &str, fraction: Fraction) -> Result<(), Refusal> {
    let layout = match fraction {
        Fraction::Optional => "2006-01-02T15:04:05Z07:00",
        Fraction::Micro => "2006-01-02T15:04:05.000000Z07:00",
    };
    parse_time(text, &fraction)
        .map_err(|why| Refusal::Message(format!("parsing time {text:?} as {layout:?}: {why}")))
}

fn parse_time(text: &str, fraction: &Fraction) -> Result<(), String> {
    const DATE_AND_TIME: [(&str, usize); 11] = [
        ("2006", 4),
        ("-", 0),
        ("01", 2),
        ("-", 0),
        ("02", 2),
        ("T", 0),
        ("15", 2),
        (":", 0),
        ("04", 2),
        (":", 0),
        ("05", 2),
    ];
    let mut rest = text;
    let mut numbers = Vec::with_capacity(6);
    for (element, digits) in DATE_AND_TIME {
        let cannot = || format!("cannot parse {rest:?} as {element:?}");
        let length = element.len();
        let part = rest.get(..length).ok_or_else(cannot)?;
        let fits = match digits {
            0 => part == element,
            _ => part.bytes().all(|byte| byte.is_ascii_digit()),
        };
        if !fits {
            return Err(cannot());
        }
        if digits > 0 {
            numbers.push(part.parse::<u32>().map_err(|_| cannot())?);
        }
        rest = &rest[length..];
    }
    let ranges = [
        ("month", 1, 1..=12),
        ("day", 2, 1..=31),
        ("hour", 3, 0..=23),
        ("minute", 4, 0..=59),
        ("second", 5, 0..=59),
    ];
    for (name, index, range) in ranges {
        if !range.contains(&numbers[index]) {
            return Err(format!("{name} out of range"));
        }
    }
    let digits = rest
        .strip_prefix('.')
        .map_or(0, |after| after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
    if matches!(fraction, Fraction::Micro) && digits != 6 {
        return Err(format!("cannot parse {rest:?} as \".000000\""));
    }
    let zone = if digits > 0 { &rest[digits + 1..] } else { rest };
    let offset = zone.len() == 6
        && zone.starts_with(['+', '-'])
        && zone.bytes().enumerate().skip(1).all(|(at, byte)| match at {
            3 => byte == b':',
            _ => byte.is_ascii_digit(),
        });
    match zone == "Z" || offset {
        true => Ok(()),
        false => Err(format!("cannot parse {zone:?} as \"Z07:00\"")),
    }
}
