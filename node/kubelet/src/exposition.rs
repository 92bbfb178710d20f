//! Prometheus' text format, version 0.0.4: families with help and type, rows with labels and perhaps a time.
//!
//! Reference: prometheus/docs, exposition formats. A family without rows is not shown.

use std::fmt::Write;

use kactor_protocol::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

/// A page of metrics as it grows.
#[derive(Default)]
pub struct Page {
    text: String,
}

/// One family of a page; its rows follow each other.
pub struct Family<'a> {
    page: &'a mut Page,
    name: &'static str,
    head: Option<(Kind, &'static str)>,
}

impl Page {
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        Family { page: self, name, head: Some((kind, help)) }
    }

    /// A family of one row without labels.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &'static str, value: f64) {
        self.family(name, kind, help).row(&[], value, None);
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// `at`: when the value was taken, where that is not now.
    pub fn row(&mut self, labels: &[(&str, &str)], value: f64, at: Option<Timestamp>) {
        let (text, name) = (&mut self.page.text, self.name);
        if let Some((kind, help)) = self.head.take() {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n"); // A String takes all.
        }
        text.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            text.push(if index == 0 { '{' } else { ',' });
            let _ = write!(text, "{label}=\"");
            escape(value, text);
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        let _ = write!(text, " {value}");
        if let Some(at) = at {
            let _ = write!(text, " {}", at.0);
        }
        text.push('\n');
    }
}

fn escape(value: &str, out: &mut String) {
    for letter in value.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_headed_once_and_labels_escaped() {
        let mut page = Page::default();
        page.family("none", Kind::Gauge, "Never shown.");
        let mut family = page.family("a_total", Kind::Counter, "How many.");
        family.row(&[("x", "1"), ("y", "a\"b\\c\nd")], 1.5, Some(Timestamp(7)));
        family.row(&[], 20.0, None);
        expect_test::expect![[r#"
            # HELP a_total How many.
            # TYPE a_total counter
            a_total{x="1",y="a\"b\\c\nd"} 1.5 7
            a_total 20
        "#]]
        .assert_eq(&page.into_text());
    }
}
