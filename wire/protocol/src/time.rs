//! Points in time as they cross boundaries: wall-clock milliseconds and monotonic deadlines.
//!
//! `Timestamp` is what people read (`metadata.creationTimestamp`); `Deadline` is what code waits for. They do
//! not mix: a wall clock may jump, a deadline must not. The calendar is the proleptic Gregorian one of
//! RFC 3339, computed with Howard Hinnant's `days_from_civil`, years 0000 to 9999.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Wall time, milliseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);

/// 9999-12-31T23:59:59.999Z, the last instant RFC 3339 can print.
const TIMESTAMP_MS_MAX: u64 = 253_402_300_799_999;

impl Timestamp {
    pub const EPOCH: Timestamp = Timestamp(0);

    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// RFC 3339 with whole seconds, as Kubernetes' `Time`: `2026-11-21T12:00:00Z`.
    pub fn rfc3339(self) -> String {
        self.to_string()
    }

    /// RFC 3339 with six digits, as Kubernetes' `MicroTime`: `2026-11-21T12:00:00.250000Z`.
    pub fn rfc3339_micro(self) -> String {
        let ms = self.0.min(TIMESTAMP_MS_MAX);
        let whole = Timestamp(ms).to_string();
        format!("{}.{:06}Z", &whole[..whole.len() - 1], (ms % 1000) * 1000)
    }

    /// The time from `earlier` until `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    pub fn plus(self, time: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(millis(time)))
    }

    pub fn minus(self, time: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(millis(time)))
    }
}

/// Prints whole seconds; instants past year 9999 print as its last second.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.min(TIMESTAMP_MS_MAX) / 1000;
        let (year, month, day) = civil_from_days((seconds / 86_400) as i64);
        let rest = seconds % 86_400;
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Why a text is no RFC 3339 instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    #[error("{text:?} is not RFC 3339, such as 2026-11-21T12:00:00Z")]
    Malformed { text: String },
    #[error("{text:?} has a {field} out of range")]
    OutOfRange { text: String, field: &'static str },
    #[error("{text:?} is before 1970, which kactor does not store")]
    BeforeEpoch { text: String },
}

/// Longest text that is looked at: date, time, 9 digits of fraction and an offset fit with room to spare.
const TIMESTAMP_TEXT_BYTES_MAX: usize = 64;

/// Takes any fraction (kept to the millisecond) and any offset, `Time` and `MicroTime` alike.
impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(TIMESTAMP_TEXT_BYTES_MAX).collect::<String>();
        let malformed = || TimestampError::Malformed { text: shown() };
        let out_of_range = |field| TimestampError::OutOfRange { text: shown(), field };
        let b = text.as_bytes();
        if b.len() < 20 || b.len() > TIMESTAMP_TEXT_BYTES_MAX {
            return Err(malformed());
        }
        let digits = |from: usize, to: usize| number(&b[from..to]).ok_or_else(malformed);
        let punctuated = b[4] == b'-'
            && b[7] == b'-'
            && matches!(b[10], b'T' | b't')
            && b[13] == b':'
            && b[16] == b':';
        if !punctuated {
            return Err(malformed());
        }
        let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
        let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
        let (fraction_ms, zone) = fraction(&b[19..]).ok_or_else(malformed)?;
        let offset_minutes = offset(zone).ok_or_else(malformed)?;
        for (field, value, min, max) in [
            ("month", month, 1, 12),
            ("day", day, 1, days_in_month(year, month)),
            ("hour", hour, 0, 23),
            ("minute", minute, 0, 59),
            ("second", second, 0, 59),
        ] {
            if !(min..=max).contains(&value) {
                return Err(out_of_range(field));
            }
        }
        let days = days_from_civil(year, month, day);
        let minutes = (days * 24 + hour) * 60 + minute - offset_minutes;
        let ms = (minutes * 60 + second) * 1000 + fraction_ms;
        let ms = u64::try_from(ms).map_err(|_| TimestampError::BeforeEpoch { text: shown() })?;
        if ms > TIMESTAMP_MS_MAX {
            return Err(out_of_range("year"));
        }
        Ok(Timestamp(ms))
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0_i64, |sum, it| it.is_ascii_digit().then(|| sum * 10 + i64::from(it - b'0')))
}

/// `.250Z` → (250, `Z`); without a fraction (0, all of it).
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(after_dot) = rest.strip_prefix(b".") else {
        return Some((0, rest));
    };
    let n_digits = after_dot.iter().take_while(|it| it.is_ascii_digit()).count();
    if n_digits == 0 {
        return None;
    }
    let digit = |at: usize| {
        if at < n_digits { i64::from(after_dot[at] - b'0') } else { 0 }
    };
    Some((digit(0) * 100 + digit(1) * 10 + digit(2), &after_dot[n_digits..]))
}

fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let total = hours * 60 + minutes;
            Some(if *sign == b'-' { -total } else { total })
        }
        _ => None,
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01. The year is counted from March, so that the leap day is its last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// When to give up: milliseconds on this host's monotonic clock (`Env::monotonic`).
///
/// It means nothing on another host; a frame carries the time that is left instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Deadline(pub u64);

impl Deadline {
    /// `timeout` from `now` (`Env::monotonic()`). Rounded up, so that a deadline never comes early.
    pub fn after(now: Duration, timeout: Duration) -> Self {
        let at = now.saturating_add(timeout);
        Self(millis(at).saturating_add(u64::from(!at.subsec_nanos().is_multiple_of(1_000_000))))
    }

    pub fn at(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// What is left at `now`; zero when it has passed.
    pub fn remaining(self, now: Duration) -> Duration {
        self.at().saturating_sub(now)
    }

    pub fn is_past(self, now: Duration) -> bool {
        now >= self.at()
    }

    /// The earlier of the two: a step inside a request never gets more time than the request has.
    pub fn earlier(self, other: Deadline) -> Deadline {
        self.min(other)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
