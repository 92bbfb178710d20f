//! What an operator says, without what is another thing each time.
//!
//! Words that a run makes up (times, ids, counts, sizes, addresses) become names of what they are; runs of blanks
//! become one, because columns are as wide as their widest number; a line that was said before is left out, because how
//! often actors repeat themselves is a matter of scheduling.

/// `names` are those of generated objects, with what stands for them.
pub fn settled(text: &str, names: &[(String, String)]) -> String {
    let mut text = text.to_owned();
    for (name, stands) in names {
        text = text.replace(name, stands);
    }
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<String> = line.split_whitespace().map(word).collect();
        let line = format!("{}{}", &line[..indent], join(&words));
        if line.starts_with("> ") || line.is_empty() || !repeats(&lines, &line) {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

/// Whether the line was said since the last prompt.
fn repeats(lines: &[String], line: &str) -> bool {
    lines.iter().rev().take_while(|it| !it.starts_with("> ")).any(|it| it == line)
}

/// A number with its unit is one thing.
fn join(words: &[String]) -> String {
    let mut out: Vec<&str> = Vec::new();
    for word in words {
        let unit = ["B", "KiB", "MiB", "GiB", "ms", "B;", "KiB;", "MiB;", "ms,", "ms;"];
        if unit.contains(&word.as_str()) && out.last() == Some(&"N") {
            out.pop();
            out.push(match word.chars().last() {
                Some(';') => "SIZE;",
                Some(',') => "SIZE,",
                _ => "SIZE",
            });
        } else {
            out.push(word);
        }
    }
    out.join(" ")
}

fn word(word: &str) -> String {
    let end = word.trim_end_matches([',', ';', ')', ':', '"', ']']);
    let (core, after) = (end.trim_start_matches(['(', '"', '[']), &word[end.len()..]);
    let before = &end[..end.len() - core.len()];
    format!("{before}{}{after}", kind_of(core))
}

fn kind_of(core: &str) -> &str {
    let digits = |it: &str| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let hex = |it: &str| it.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_uuid = core.len() == 36 && core.split('-').all(hex);
    if digits(core) {
        return match core.matches('.').count() {
            3 => "IP",
            _ => "N",
        };
    }
    if core.len() >= 20 && core.ends_with('Z') && core.as_bytes()[4] == b'-' {
        return "TIME";
    }
    if core.len() == 16 && hex(core) {
        return "HEX";
    }
    if is_uuid {
        return "UID";
    }
    match core.split_once('/') {
        Some((left, right)) if digits(left) && digits(right) => "N/N",
        _ if core.starts_with(|it: char| it.is_ascii_digit())
            && core.ends_with(['s', 'm', 'h', 'd'])
            && core.bytes().all(|b| b.is_ascii_digit() || b"smhd".contains(&b)) =>
        {
            "SPAN"
        }
        _ => core,
    }
}

#[test]
fn what_changes_from_run_to_run_is_named_and_the_rest_is_kept() {
    let names = [("web-7f9c-x2".to_owned(), "web-HASH-POD".to_owned())];
    let text = "> why pod/web-7f9c-x2\nAT                    WHO\n2026-11-21T15:27:17Z  api (revision 17)\n\
                2026-11-21T15:27:19Z  api (revision 18)\n  10.0.0.1  1.5 KiB; 3/256  1m2s  00c0ffee00c0ffee,\n";
    let expected =
        "> why pod/web-HASH-POD\nAT WHO\nTIME api (revision N)\n  IP SIZE; N/N SPAN HEX,\n";
    assert_eq!(settled(text, &names), expected);
}
