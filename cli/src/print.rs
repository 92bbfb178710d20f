//! How answers look on a terminal: error chains, tables, versions.

use std::process::ExitCode;

use serde_json::json;

use crate::args::Output;

/// An error with everything that led to it, on one line.
pub fn chain(error: &anyhow::Error) -> String {
    let parts: Vec<String> = error.chain().map(ToString::to_string).collect();
    parts.join(": ")
}

/// Columns padded to their widest cell, two blanks between.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|it| it.get(column)).map(|it| it.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut out = line(&head.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|it| out.push_str(&line(it)));
    out
}

/// A size in binary units, with one decimal above a kibibyte.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let (mut size, mut unit) = (n as f64 / 1024.0, 0);
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A length of time by its two largest units, as kubectl shows ages.
pub fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

pub fn version(output: Output) -> anyhow::Result<ExitCode> {
    let ours = env!("CARGO_PKG_VERSION");
    let kubernetes = kactor_gateway::version::GIT_VERSION;
    match output {
        Output::Json => println!("{}", json!({ "kactor": ours, "kubernetes": kubernetes })),
        Output::Text => println!("kactor {ours} (Kubernetes API {kubernetes})"),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_carry_units() {
        assert_eq!([bytes(0), bytes(1023)], ["0 B", "1023 B"]);
        assert_eq!([bytes(1536), bytes(3 << 40)], ["1.5 KiB", "3.0 TiB"]);
        assert_eq!([span(0), span(75)], ["0s", "1m15s"]);
        assert_eq!([span(3_700), span(90_000)], ["1h1m", "1d1h"]);
    }

    #[test]
    fn tables_line_up() {
        let rows =
            vec![vec!["a".to_owned(), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        assert_eq!(table(&["X", "NAME"], &rows), "X     NAME\na     b\nlong  c\n");
    }
}
