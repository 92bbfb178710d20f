//! The kubeconfig document: how a client finds the API, trusts it and says who it is.
//!
//! A tree, so that the command line can merge its three entries into a file that has others. Certificates stand
//! inside as base64, so that the document works wherever it is copied to.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::pki::Identity;

/// One cluster, one user and one context, all called `name`, with that context current.
pub fn document(name: &str, server: &str, ca_pem: &str, client: &Identity) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": name,
            "cluster": {"certificate-authority-data": STANDARD.encode(ca_pem), "server": server},
        }],
        "users": [{
            "name": name,
            "user": {
                "client-certificate-data": STANDARD.encode(&client.cert_pem),
                "client-key-data": STANDARD.encode(&client.key_pem),
            },
        }],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
        "preferences": {},
    })
}

/// As the file is written.
pub fn yaml(document: &Value) -> String {
    // Certificates on one line each, as every other tool writes them.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(document, options)
        .expect("a tree of strings and lists always prints as YAML")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_something_else_stays_a_string() {
        let tricky = [
            "yes",
            "on",
            "n",
            "~",
            "null",
            "true",
            "0o17",
            "007",
            "1_000",
            "1:30",
            "1e3",
            ".inf",
            "",
            " a ",
            "a: b",
            "# a",
            "- a",
            "a\nb\n",
            "'",
            "\"",
            "2026-11-21",
            "<<",
            "=",
            "!x",
            "&a",
            "*a",
            "{",
            "%",
        ];
        let document = json!({ "values": tricky, "none": null, "flag": true, "n": 7, "half": 0.5, "empty": {}, "list": [] });
        let text = yaml(&document);
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), document, "{text}");
        // kubectl reads YAML 1.1, where more words are no strings.
        for word in ["yes", "on", "n", "0o17", "007", "1_000", "1:30", "2026-11-21"] {
            assert!(
                text.contains(&format!("'{word}'")) || text.contains(&format!("\"{word}\"")),
                "{word}: {text}"
            );
        }
        let long = json!({ "key": "QUJD".repeat(100) });
        assert_eq!(yaml(&long), format!("key: {}\n", "QUJD".repeat(100)));
    }

    #[test]
    fn the_document_read_back_from_yaml_is_the_same_tree() {
        let client = Identity { cert_pem: "CERT\n".to_owned(), key_pem: "KEY\n".to_owned() };
        let document = document("kactor", "https://127.0.0.1:6443", "CA\n", &client);
        let back: Value = serde_saphyr::from_str(&yaml(&document)).unwrap();
        assert_eq!(back, document);
        assert_eq!(back["users"][0]["user"]["client-key-data"], STANDARD.encode("KEY\n"));
    }
}
