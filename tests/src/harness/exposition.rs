//! A strict reader of Prometheus' text format, version 0.0.4: what it does not like, a scraper may not either.
//!
//! Stricter than scrapers: every family has help and type before its rows, its rows follow each other, no row comes
//! twice, counters are called `_total` and never negative, and the page ends with a line's end.

use std::collections::{BTreeMap, BTreeSet};

/// One row's value, by its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
    pub at_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub kind: String,
    pub rows: Vec<Row>,
}

/// A page, by the families' names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    pub families: BTreeMap<String, Family>,
}

const KINDS: [&str; 4] = ["counter", "gauge", "histogram", "summary"];

impl Page {
    /// Reads a page, or says which line is wrong and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.is_empty() && !text.ends_with('\n') {
            return Err("the last line does not end".to_owned());
        }
        let mut page = Page::default();
        let (mut helped, mut current) = (None, String::new());
        for (index, line) in text.lines().enumerate() {
            let wrong = |why: &str| format!("line {}: {why}: {line:?}", index + 1);
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) =
                    help.split_once(' ').ok_or_else(|| wrong("help without text"))?;
                if text.trim().is_empty() {
                    return Err(wrong("empty help"));
                }
                helped = Some(name.to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) =
                    kind.split_once(' ').ok_or_else(|| wrong("type without kind"))?;
                if helped.take().as_deref() != Some(name) {
                    return Err(wrong("no help of this family before its type"));
                }
                page.begin(name, kind).map_err(|it| wrong(&it))?;
                current = name.to_owned();
            } else {
                let (name, row) = parse_row(line).map_err(|it| wrong(&it))?;
                page.add(&current, &name, row).map_err(|it| wrong(&it))?;
            }
        }
        match page.families.iter().find(|(_, it)| it.rows.is_empty()) {
            Some((name, _)) => Err(format!("the family {name} has no rows")),
            None => Ok(page),
        }
    }

    fn begin(&mut self, name: &str, kind: &str) -> Result<(), String> {
        check_name(name)?;
        if !KINDS.contains(&kind) {
            return Err(format!("{kind} is no kind"));
        }
        if kind == "counter" && !name.ends_with("_total") {
            return Err("a counter's name ends with _total".to_owned());
        }
        let family = Family { kind: kind.to_owned(), rows: Vec::new() };
        match self.families.insert(name.to_owned(), family) {
            Some(_) => Err("the family comes twice".to_owned()),
            None => Ok(()),
        }
    }

    fn add(&mut self, family: &str, name: &str, mut row: Row) -> Result<(), String> {
        let it = self.families.get_mut(family).ok_or("a row before any family")?;
        let suffix = name.strip_prefix(family).ok_or("a row of another family")?;
        let fits = match it.kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
            "summary" => ["", "_sum", "_count"].contains(&suffix),
            _ => suffix.is_empty(),
        };
        if !fits {
            return Err(format!("{name} is no row of the {} {family}", it.kind));
        }
        if it.kind == "counter" && (row.value < 0.0 || !row.value.is_finite()) {
            return Err("a counter counts up from zero".to_owned());
        }
        if !suffix.is_empty() {
            row.labels.insert("__part__".to_owned(), suffix.to_owned());
        }
        if it.rows.iter().any(|other| other.labels == row.labels) {
            return Err("the row comes twice".to_owned());
        }
        it.rows.push(row);
        Ok(())
    }

    /// The rows of a family that have all these labels.
    pub fn rows(&self, family: &str, labels: &[(&str, &str)]) -> Vec<&Row> {
        let all = self.families.get(family).into_iter().flat_map(|it| &it.rows);
        let has = |row: &Row, (name, value): &(&str, &str)| {
            row.labels.get(*name).is_some_and(|it| it == value)
        };
        all.filter(|row| labels.iter().all(|it| has(row, it))).collect()
    }

    /// The only row of a family with these labels.
    ///
    /// # Panics
    /// When there is none or more than one.
    #[track_caller]
    pub fn one(&self, family: &str, labels: &[(&str, &str)]) -> &Row {
        match self.rows(family, labels).as_slice() {
            [row] => row,
            other => panic!("{} rows of {family} with {labels:?}: {other:?}", other.len()),
        }
    }

    pub fn names(&self) -> BTreeSet<&str> {
        self.families.keys().map(String::as_str).collect()
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let mut letters = name.chars();
    let begins = letters.next().is_some_and(|it| it.is_ascii_alphabetic() || "_:".contains(it));
    match begins && letters.all(|it| it.is_ascii_alphanumeric() || "_:".contains(it)) {
        true => Ok(()),
        false => Err(format!("{name:?} is no name")),
    }
}

fn parse_row(line: &str) -> Result<(String, Row), String> {
    let name_len = line.find(['{', ' ']).ok_or("neither labels nor a value")?;
    let (name, rest) = line.split_at(name_len);
    check_name(name)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let mut parts = rest.strip_prefix(' ').ok_or("no space before the value")?.split(' ');
    let value = parts.next().unwrap_or_default();
    let value: f64 = value.parse().map_err(|_| format!("{value:?} is no number"))?;
    let at_ms = parts.next().map(|it| it.parse::<i64>().map_err(|_| format!("{it:?} is no time")));
    if parts.next().is_some() {
        return Err("something behind the time".to_owned());
    }
    Ok((name.to_owned(), Row { labels, value, at_ms: at_ms.transpose()? }))
}

/// What stands between the braces, and what follows them.
fn parse_labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), String> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, after) = rest.split_once("=\"").ok_or("a label without a value")?;
        check_name(name)?;
        let (value, after) = parse_value(after)?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err(format!("the label {name} comes twice"));
        }
        match after.split_at_checked(1) {
            Some((",", more)) => rest = more,
            Some(("}", more)) => return Ok((labels, more)),
            _ => return Err("labels that do not end".to_owned()),
        }
    }
}

fn parse_value(text: &str) -> Result<(String, &str), String> {
    let (mut value, mut letters) = (String::new(), text.char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match letters.next() {
                Some((_, 'n')) => '\n',
                Some((_, it @ ('\\' | '"'))) => it,
                other => return Err(format!("\\{other:?} is no escape")),
            }),
            other => value.push(other),
        }
    }
    Err("a label's value that does not end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_page_is_read_to_the_last_label() {
        let text = "# HELP a_total Some.\n# TYPE a_total counter\na_total{x=\"1\\n\\\"\",y=\"\"} 2 7\na_total 1e3\n";
        let page = Page::parse(text).unwrap();
        let row = page.one("a_total", &[("x", "1\n\"")]);
        assert_eq!((row.value, row.at_ms), (2.0, Some(7)));
        assert_eq!(page.rows("a_total", &[]).len(), 2);
    }

    #[test]
    fn what_scrapers_might_not_like_is_refused() {
        let head = "# HELP a Some.\n# TYPE a gauge\n";
        for bad in [
            "a 1\n",
            "# TYPE a gauge\na 1\n",
            "# HELP a \n# TYPE a gauge\na 1\n",
            "# HELP a Some.\n# TYPE a counter\na 1\n",
            "# HELP a Some.\n# TYPE a gauge\n",
            &format!("{head}a 1"),
            &format!("{head}b 1\n"),
            &format!("{head}a 1\na 2\n"),
            &format!("{head}a{{x=\"1\"}} \n"),
            &format!("{head}a{{x=\"1}} 1\n"),
            &format!("{head}a{{x=\"\\q\"}} 1\n"),
            &format!("{head}a{{x=\"1\",x=\"2\"}} 1\n"),
            &format!("{head}a 1 2 3\n"),
            &format!("{head}a 1\n{head}a 2\n"),
        ] {
            assert!(Page::parse(bad).is_err(), "{bad:?}");
        }
    }
}
