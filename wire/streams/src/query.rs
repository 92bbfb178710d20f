//! The query of a URL: decoded once, in order, with repeated names kept (`command=ls&command=-l`).

/// Name and value pairs. Their number is bounded by the bytes of a request's head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub fn parse(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|it| !it.is_empty())
            .map(|it| it.split_once('=').unwrap_or((it, "")))
            .map(|(name, value)| (decode(name, Plus::Space), decode(value, Plus::Space)))
            .collect();
        Self { pairs }
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// The first value, when it is not empty.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).filter(|it| !it.is_empty()).map(str::to_owned)
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// As apimachinery converts it: absent is false; `false` and `0` are false; everything else, "" too, is true.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|it| !(it.eq_ignore_ascii_case("false") || it == "0"))
    }

    /// Absent, empty, or a number; else the text of Go's error, which is what clients were always told.
    pub fn number(&self, name: &str) -> Result<Option<i64>, String> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")),
            },
        }
    }
}

/// What `+` means: a space in a query, itself in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plus {
    Space,
    Plus,
}

/// Undoes percent encoding. What is no encoding stays as it is; bytes that are no UTF-8 become U+FFFD.
pub fn decode(text: &str, plus: Plus) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' if plus == Plus::Space => out.push(b' '),
            b'%' => match escaped(after) {
                Some(byte) => {
                    out.push(byte);
                    rest = &after[2..];
                }
                None => out.push(b'%'),
            },
            byte => out.push(byte),
        }
    }
    String::from_utf8(out)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn escaped(after: &[u8]) -> Option<u8> {
    let digit = |at: usize| after.get(at).and_then(|it| char::from(*it).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_decoded_and_repeated_names_kept() {
        let query =
            Query::parse("labelSelector=a%3Db%2Cc+in+%28d%29&command=ls&command=-l&watch&x=%zz");
        assert_eq!(query.get("labelSelector"), Some("a=b,c in (d)"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["ls", "-l"]);
        assert_eq!(query.get("watch"), Some(""));
        assert_eq!(query.get("x"), Some("%zz"));
        assert_eq!(query.get("y"), None);
    }

    #[test]
    fn flags_are_read_as_apimachinery_reads_them() {
        for (text, expected) in [
            ("", false),
            ("watch", true),
            ("watch=", true),
            ("watch=1", true),
            ("watch=true", true),
            ("watch=yes", true),
            ("watch=0", false),
            ("watch=False", false),
        ] {
            assert_eq!(Query::parse(text).flag("watch"), expected, "{text}");
        }
    }

    #[test]
    fn a_number_that_is_none_is_named() {
        assert_eq!(Query::parse("limit=5").number("limit"), Ok(Some(5)));
        assert_eq!(Query::parse("limit=").number("limit"), Ok(None));
        let error = Query::parse("limit=abc").number("limit").unwrap_err();
        assert_eq!(error, "strconv.ParseInt: parsing \"abc\": invalid syntax");
    }

    proptest! {
        #[test]
        fn decoding_never_panics(text in ".*") {
            decode(&text, Plus::Space);
            Query::parse(&text);
        }
    }
}
