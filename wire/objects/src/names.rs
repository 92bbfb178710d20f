//! Which names, keys and values are well formed, with upstream's words for those that are not.
//!
//! Each function gives the list of faults, empty for a good value, as apimachinery's util/validation does; the
//! caller puts them into field errors. The patterns are checked by hand: they are a character class and what may
//! stand at the ends.

const LABEL_LEN_MAX: usize = 63;
const SUBDOMAIN_LEN_MAX: usize = 253;
/// Room that a generated suffix takes at the end of a name.
pub const GENERATED_SUFFIX_LEN: usize = 5;
/// Longest base that a generated suffix is put behind; the rest is cut off.
pub const GENERATED_BASE_LEN_MAX: usize = LABEL_LEN_MAX - GENERATED_SUFFIX_LEN;
/// The letters of generated suffixes: no vowels, so that no words appear, and none that look alike.
pub const GENERATED_SUFFIX_ALPHABET: &str = "bcdfghjklmnpqrstvwxz2456789";

const LABEL_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_WORDS: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_WORDS: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const DNS1035_WORDS: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const QUALIFIED_NAME_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_NAME_WORDS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE_WORDS: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

pub fn too_long(len_max: usize) -> String {
    format!("must be no more than {len_max} bytes")
}

pub fn out_of_range(min: i64, max: i64) -> String {
    format!("must be between {min} and {max}, inclusive")
}

fn pattern(words: &str, format: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|it| format!("'{it}'")).collect();
    format!("{words} (e.g. {}, regex used for validation is '{format}')", examples.join(",  or "))
}

fn is_lower_alphanumeric(it: char) -> bool {
    it.is_ascii_lowercase() || it.is_ascii_digit()
}

/// Not empty, `inner` throughout, `ends` at both ends.
fn is_word(text: &str, inner: fn(char) -> bool, ends: fn(char) -> bool) -> bool {
    text.chars().all(inner) && text.starts_with(ends) && text.ends_with(ends)
}

fn is_dns1123_label(text: &str) -> bool {
    is_word(text, |it| is_lower_alphanumeric(it) || it == '-', is_lower_alphanumeric)
}

fn is_dns1123_subdomain(text: &str) -> bool {
    text.split('.').all(is_dns1123_label)
}

/// Namespaces, container names, port names' elder sister.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > LABEL_LEN_MAX {
        faults.push(too_long(LABEL_LEN_MAX));
    }
    if !is_dns1123_label(text) {
        faults.push(match is_dns1123_subdomain(text) {
            true => "must not contain dots".to_owned(),
            false => pattern(LABEL_WORDS, LABEL_FORMAT, &["my-name", "123-abc"]),
        });
    }
    faults
}

/// Most objects' names.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > SUBDOMAIN_LEN_MAX {
        faults.push(too_long(SUBDOMAIN_LEN_MAX));
    }
    if !is_dns1123_subdomain(text) {
        let format = format!("{LABEL_FORMAT}(\\.{LABEL_FORMAT})*");
        faults.push(pattern(SUBDOMAIN_WORDS, &format, &["example.com"]));
    }
    faults
}

/// Services' names.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > LABEL_LEN_MAX {
        faults.push(too_long(LABEL_LEN_MAX));
    }
    let starts_well = text.starts_with(|it: char| it.is_ascii_lowercase());
    if !starts_well || !is_dns1123_label(text) {
        faults.push(pattern(DNS1035_WORDS, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    faults
}

/// RBAC's names: anything that fits into a path segment.
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|it| text.contains(**it))
        .map(|it| format!("may not contain '{it}'"))
        .collect()
}

/// Keys of labels and annotations, resource names: `[prefix/]name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name_of =
        |text: &str| pattern(text, QUALIFIED_NAME_FORMAT, &["MyName", "my.name", "123-abc"]);
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".to_owned());
            } else {
                let prefixed = dns1123_subdomain(prefix);
                faults.extend(prefixed.into_iter().map(|it| format!("prefix part {it}")));
            }
            *name
        }
        _ => {
            let why = name_of(&format!("a valid label key {QUALIFIED_NAME_WORDS}"));
            let optional =
                " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("{why}{optional}")];
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_LEN_MAX {
        faults.push(format!("name part {}", too_long(LABEL_LEN_MAX)));
    }
    if !is_qualified_word(name) {
        faults.push(format!("name part {}", name_of(QUALIFIED_NAME_WORDS)));
    }
    faults
}

fn is_qualified_word(text: &str) -> bool {
    is_word(
        text,
        |it| it.is_ascii_alphanumeric() || "-_.".contains(it),
        |it| it.is_ascii_alphanumeric(),
    )
}

pub fn label_value(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > LABEL_LEN_MAX {
        faults.push(too_long(LABEL_LEN_MAX));
    }
    if !text.is_empty() && !is_qualified_word(text) {
        faults.push(pattern(
            LABEL_VALUE_WORDS,
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    faults
}

/// Names of container and service ports (IANA service names).
pub fn port_name(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 15 {
        faults.push(too_long(15));
    }
    if text.is_empty() || !text.chars().all(|it| is_lower_alphanumeric(it) || it == '-') {
        faults.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !text.contains(|it: char| it.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        faults.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        faults.push("must not begin or end with a hyphen".to_owned());
    }
    faults
}

pub fn port_number(port: i64) -> Vec<String> {
    match port {
        1..=65535 => Vec::new(),
        _ => vec![out_of_range(1, 65535)],
    }
}

/// Names of environment variables: printable ASCII but `=`, as Kubernetes allows since 1.34.
pub fn environment_variable(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.is_empty() {
        faults.push("environment variable name must be non-empty".to_owned());
    }
    if !text.chars().all(|it| (' '..='~').contains(&it) && it != '=') {
        faults.push("a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned());
    }
    faults
}

/// Keys in ConfigMaps and Secrets; also file names in volumes made from them.
pub fn config_key(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > SUBDOMAIN_LEN_MAX {
        faults.push(too_long(SUBDOMAIN_LEN_MAX));
    }
    let is_key_char = |it: char| it.is_ascii_alphanumeric() || "-._".contains(it);
    if text.is_empty() || !text.chars().all(is_key_char) {
        faults.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => faults.push("must not be '.'".to_owned()),
        ".." => faults.push("must not be '..'".to_owned()),
        it if it.starts_with("..") => faults.push("must not start with '..'".to_owned()),
        _ => {}
    }
    faults
}

/// An address in canonical or at least unambiguous form.
pub fn ip(text: &str) -> Vec<String> {
    match text.parse::<std::net::IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => {
            vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
        }
    }
}

/// The name for `generateName`: the base cut to leave room, then the suffix.
pub fn generated(base: &str, suffix: &str) -> String {
    let cut = (0..=base.len().min(GENERATED_BASE_LEN_MAX))
        .rev()
        .find(|at| base.is_char_boundary(*at))
        .unwrap_or(0);
    format!("{}{suffix}", &base[..cut])
}

#[cfg(test)]
mod tests;
