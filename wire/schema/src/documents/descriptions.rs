//! The texts of `kubectl explain`, from k8s-openapi's schemas (data/NOTICE).
//!
//! Read anew for each document that is made, and dropped after: they are the largest thing here and rarely needed.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;

pub(super) const DESCRIPTIONS: &[u8] = include_bytes!("../../data/descriptions.json.deflate");

/// Texts by definition and field.
#[derive(Deserialize)]
pub(super) struct Descriptions(BTreeMap<String, (String, BTreeMap<String, String>)>);

impl Descriptions {
    pub fn load() -> Descriptions {
        let mut text = Vec::new();
        flate2::read::DeflateDecoder::new(DESCRIPTIONS)
            .read_to_end(&mut text)
            .expect("the committed descriptions decompress");
        serde_json::from_slice(&text).expect("the committed descriptions are JSON")
    }

    pub fn of(&self, definition: &str) -> Option<String> {
        match self.0.get(definition) {
            Some((text, _)) => Some(text.clone()).filter(|text| !text.is_empty()),
            None => {
                let kind = definition.rsplit('.').next()?.strip_suffix("List")?;
                Some(format!("{kind}List is a list of {kind} objects."))
            }
        }
    }

    /// Lists are one generic type in the source; their fields are described here and by their elements.
    pub fn of_field(&self, definition: &str, field: &str) -> Option<String> {
        if let Some((_, fields)) = self.0.get(definition) {
            return fields.get(field).cloned();
        }
        let kind = definition.strip_suffix("List")?;
        match field {
            "items" => Some("The objects of this list.".to_owned()),
            "metadata" => {
                Some("The list's own metadata: its resourceVersion and paging.".to_owned())
            }
            field => self.0.get(kind)?.1.get(field).cloned(),
        }
    }
}
