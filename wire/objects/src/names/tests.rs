//! Good and bad names with their messages.

use super::*;

#[test]
fn good_names_have_no_faults() {
    type Rule = fn(&str) -> Vec<String>;
    let cases: [(Rule, &[&str]); 9] = [
        (dns1123_label, &["a", "web-1", "0"]),
        (dns1123_subdomain, &["a", "a.b-c.1"]),
        (dns1035_label, &["a", "web-1"]),
        (path_segment, &["system:node", "a b", "..."]),
        (qualified_name, &["a", "A_b.c", "example.com/My-Name", "a.b/c"]),
        (label_value, &["", "A_b.c-1", "0"]),
        (port_name, &["http", "h2-c", "1a"]),
        (environment_variable, &["A", "a.b-c", "1 x"]),
        (config_key, &["a", ".env", "A_b-c.d"]),
    ];
    for (rule, names) in cases {
        for name in names {
            assert_eq!(rule(name), Vec::<String>::new(), "{name}");
        }
    }
}

#[test]
fn bad_names_are_described_in_upstreams_words() {
    let mut out = String::new();
    let mut say = |rule: &str, name: &str, faults: Vec<String>| {
        assert!(!faults.is_empty(), "{rule} {name}");
        let shown: String = name.chars().take(12).collect();
        out.push_str(&format!("{rule} {shown:?}:\n  {}\n", faults.join("\n  ")));
    };
    let long = "a".repeat(64);
    for name in ["", "A", "-a", "a.b", &long] {
        say("label", name, dns1123_label(name));
    }
    for name in ["", "a..b", "a_b"] {
        say("subdomain", name, dns1123_subdomain(name));
    }
    say("1035", "1a", dns1035_label("1a"));
    for name in [".", "a/b", "a%b"] {
        say("segment", name, path_segment(name));
    }
    for name in ["", "/a", "a/", "a/b/c", "A.b/c", "-a", &long] {
        say("qualified", name, qualified_name(name));
    }
    for name in ["-a", &long] {
        say("value", name, label_value(name));
    }
    for name in ["", "1", "a--b", "-a", "a-very-long-port-name"] {
        say("port", name, port_name(name));
    }
    for name in ["", "a=b", "ä"] {
        say("env", name, environment_variable(name));
    }
    for name in ["", ".", "..", "..a", "a/b"] {
        say("key", name, config_key(name));
    }
    expect_test::expect![[r#"
        label "":
          a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        label "A":
          a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        label "-a":
          a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        label "a.b":
          must not contain dots
        label "aaaaaaaaaaaa":
          must be no more than 63 bytes
        subdomain "":
          a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        subdomain "a..b":
          a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        subdomain "a_b":
          a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        1035 "1a":
          a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
        segment ".":
          may not be '.'
        segment "a/b":
          may not contain '/'
        segment "a%b":
          may not contain '%'
        qualified "":
          name part must be non-empty
          name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        qualified "/a":
          prefix part must be non-empty
        qualified "a/":
          name part must be non-empty
          name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        qualified "a/b/c":
          a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')
        qualified "A.b/c":
          prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        qualified "-a":
          name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        qualified "aaaaaaaaaaaa":
          name part must be no more than 63 bytes
        value "-a":
          a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
        value "aaaaaaaaaaaa":
          must be no more than 63 bytes
        port "":
          must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
          must contain at least one letter (a-z)
        port "1":
          must contain at least one letter (a-z)
        port "a--b":
          must not contain consecutive hyphens
        port "-a":
          must not begin or end with a hyphen
        port "a-very-long-":
          must be no more than 15 bytes
        env "":
          environment variable name must be non-empty
        env "a=b":
          a valid environment variable name must consist only of printable ASCII characters other than '='
        env "ä":
          a valid environment variable name must consist only of printable ASCII characters other than '='
        key "":
          a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
        key ".":
          must not be '.'
        key "..":
          must not be '..'
        key "..a":
          must not start with '..'
        key "a/b":
          a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
    "#]].assert_eq(&out);
}

#[test]
fn generated_names_stay_within_a_label() {
    assert_eq!(generated("web-", "abcde"), "web-abcde");
    let name = generated(&"x".repeat(100), "abcde");
    assert_eq!(name.len(), 63);
    assert!(generated(&"é".repeat(40), "abcde").ends_with("éabcde"), "cut between letters");
}
