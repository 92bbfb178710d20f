//! Reads data/facts.json.deflate (written by tools/facts.py) into a table of nodes.
//!
//! The file's types are short strings: a letter for a scalar, `@name` for a definition, `a…` for a list and `m…`
//! for a map of what follows. The file is ours and committed, so a wrong one is a broken invariant, not an error.

use super::{Definition, FieldRow, KindName, ListType, PatchStrategy, Row, Scalar, Table};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;

pub(crate) const FACTS: &[u8] = include_bytes!("../../data/facts.json.deflate");

#[derive(Deserialize)]
struct File {
    version: String,
    definitions: Vec<FileDefinition>,
}

#[derive(Deserialize)]
struct FileDefinition {
    n: Box<str>,
    #[serde(default)]
    g: Vec<(Box<str>, Box<str>, Box<str>)>,
    #[serde(default)]
    k: Option<String>,
    #[serde(default)]
    p: BTreeMap<Box<str>, FileField>,
    #[serde(default)]
    r: Vec<Box<str>>,
    #[serde(default)]
    a: u8,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FileField {
    Plain(String),
    With(String, Options),
}

#[derive(Deserialize, Default)]
struct Options {
    lt: Option<String>,
    #[serde(default)]
    lk: Vec<Box<str>>,
    mt: Option<String>,
    ps: Option<String>,
    pk: Option<Box<str>>,
    d: Option<Box<str>>,
}

pub(super) fn load() -> Table {
    let mut text = Vec::new();
    flate2::read::DeflateDecoder::new(FACTS)
        .read_to_end(&mut text)
        .expect("the committed facts decompress");
    let file: File = serde_json::from_slice(&text).expect("the committed facts are JSON");
    let mut table = Table { version: file.version, ..Table::default() };
    for (index, definition) in file.definitions.iter().enumerate() {
        table.by_name.insert(definition.n.clone(), u32_of(index));
        let row = match definition.k.as_deref() {
            Some(special) => Row::Scalar(special_scalar(special)),
            None => Row::Struct { definition: u32_of(index), atomic: definition.a == 1 },
        };
        let node = table.push(row);
        table.node_of.push(node);
    }
    for definition in file.definitions {
        let made = table.definition(definition);
        table.definitions.push(made);
    }
    table
}

fn u32_of(index: usize) -> u32 {
    u32::try_from(index).expect("the table has far fewer than 2^32 rows")
}

impl Table {
    fn push(&mut self, row: Row) -> u32 {
        self.rows.push(row);
        u32_of(self.rows.len() - 1)
    }

    fn definition(&mut self, file: FileDefinition) -> Definition {
        let fields = file
            .p
            .into_iter()
            .map(|(name, field)| {
                let required = file.r.contains(&name);
                let (type_name, options) = match field {
                    FileField::Plain(type_name) => (type_name, Options::default()),
                    FileField::With(type_name, options) => (type_name, options),
                };
                let node = self.node(&type_name, &options);
                let strategy = strategy(options.ps.as_deref().unwrap_or_default());
                let granular = options.mt.as_deref() == Some("granular");
                let (merge_key, default) = (options.pk, options.d);
                FieldRow { name, node, required, strategy, merge_key, default, granular }
            })
            .collect();
        let kinds = file
            .g
            .into_iter()
            .map(|(group, version, kind)| KindName { group, version, kind })
            .collect();
        Definition { name: file.n, kinds, fields, required: file.r, atomic: file.a == 1 }
    }

    fn node(&mut self, type_name: &str, options: &Options) -> u32 {
        let atomic = options.mt.as_deref().map(|map_type| map_type == "atomic");
        let (letter, rest) = type_name.split_at(1);
        let row = match letter {
            "@" => {
                let definition = *self.by_name.get(rest).expect("a reference has its definition");
                let node = self.node_of[definition as usize];
                match (atomic, &self.rows[node as usize]) {
                    (Some(atomic), Row::Struct { definition, .. }) => {
                        Row::Struct { definition: *definition, atomic }
                    }
                    _ => return node,
                }
            }
            "a" => {
                let items = self.node(rest, &Options::default());
                let list_type = list_type(options.lt.as_deref());
                Row::List { items, list_type, keys: options.lk.clone().into() }
            }
            "m" => {
                let value = self.node(rest, &Options::default());
                Row::Map { value, atomic: atomic.unwrap_or(false) }
            }
            scalar => Row::Scalar(plain_scalar(scalar)),
        };
        self.push(row)
    }
}

fn list_type(written: Option<&str>) -> ListType {
    match written {
        Some("map") => ListType::Map,
        Some("set") => ListType::Set,
        _ => ListType::Atomic,
    }
}

fn strategy(written: &str) -> PatchStrategy {
    let has = |name| written.split(',').any(|part| part == name);
    PatchStrategy { merge: has("merge"), retain_keys: has("retainKeys"), replace: has("replace") }
}

fn plain_scalar(letter: &str) -> Scalar {
    match letter {
        "s" => Scalar::Text,
        "y" => Scalar::Bytes,
        "i" => Scalar::Int32,
        "l" => Scalar::Int64,
        "d" => Scalar::Double,
        "b" => Scalar::Boolean,
        other => panic!("data/facts.json.deflate names an unknown scalar {other:?}"),
    }
}

fn special_scalar(name: &str) -> Scalar {
    match name {
        "any" => Scalar::Any,
        "object" => Scalar::Object,
        "quantity" => Scalar::Quantity,
        "int-or-string" => Scalar::IntOrString,
        "time" => Scalar::Time,
        "micro-time" => Scalar::MicroTime,
        other => panic!("data/facts.json.deflate names an unknown special {other:?}"),
    }
}
