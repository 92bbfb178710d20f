//! Writes ../../data/descriptions.json.deflate: what `kubectl explain` prints, from k8s-openapi's schemas.
//!
//! Run by hand, never by the build: k8s-openapi is large, and production must not depend on it.
//! Output: `{definition: [description, {field: description}]}`, raw deflate.

mod each_type;

use flate2::{Compression, write::DeflateEncoder};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut definitions = Map::new();
    let mut generator = SchemaGenerator::default();
    macro_rules! add {
        ($type:ty) => {
            let schema = <$type>::json_schema(&mut generator);
            definitions.insert(<$type>::schema_name().into_owned(), described(schema.as_value()));
        };
    }
    each_type::each_type!(add);
    let text = serde_json::to_vec(&Value::Object(definitions))?;
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/descriptions.json.deflate");
    let mut encoder = DeflateEncoder::new(std::fs::File::create(target)?, Compression::best());
    encoder.write_all(&text)?;
    encoder.finish()?;
    println!("{} bytes of descriptions", text.len());
    Ok(())
}

fn described(schema: &Value) -> Value {
    let text = |of: &Value| of["description"].as_str().unwrap_or_default().to_owned();
    let fields: Map<String, Value> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, field)| (name.clone(), Value::String(text(field))))
        .filter(|(_, text)| text != "")
        .collect();
    json!([text(schema), fields])
}
