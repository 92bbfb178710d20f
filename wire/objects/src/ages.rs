//! Durations as people read them in tables: `5s`, `3m20s`, `2d4h`, `3y10d`.
//!
//! The steps are those of apimachinery's util/duration: two units while the first is small, then one.

use std::time::Duration;

/// The Age cell's form.
pub fn human(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => pair(days, "d", hours % 24, "h"),
        () if days < 365 * 2 => format!("{days}d"),
        () if days < 365 * 8 => pair(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

/// `2d4h`, or `2d` when nothing remains.
fn pair(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_kubectl_does() {
        let (m, h, d) = (60, 3600, 86_400);
        for (seconds, printed) in [
            (0, "0s"),
            (119, "119s"),
            (2 * m, "2m"),
            (9 * m + 59, "9m59s"),
            (10 * m + 1, "10m"),
            (179 * m + 59, "179m"),
            (3 * h, "3h"),
            (7 * h + 59 * m, "7h59m"),
            (8 * h + 59 * m, "8h"),
            (47 * h, "47h"),
            (2 * d, "2d"),
            (7 * d + 23 * h, "7d23h"),
            (8 * d + 23 * h, "8d"),
            (729 * d, "729d"),
            (2 * 365 * d, "2y"),
            (3 * 365 * d + 10 * d, "3y10d"),
            (8 * 365 * d, "8y"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), printed, "{seconds} s");
        }
    }
}
