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
    fn tables_line_up() {
        let rows =
            vec![vec!["a".to_owned(), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        assert_eq!(table(&["X", "NAME"], &rows), "X     NAME\na     b\nlong  c\n");
    }
}
