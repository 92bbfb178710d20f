//! Bodies in Kubernetes' protobuf, read as JSON trees: client-go since 1.33 sends them without being asked.
//!
//! An envelope (`k8s\0`, then `runtime.Unknown`) names version and kind; the object inside has no names at all, so
//! field numbers come from data/protobuf.json.deflate (tools/protobuf_facts.py). The tree is what the same client
//! would have sent as JSON: Go writes every field that is no pointer, so a zero is left out where JSON's `omitempty`
//! leaves it out. A number that is not known is skipped and told, as strict decoding tells unknown fields.
//! Bounds: the body's size (the gateway's), depth.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kactor_protocol::time::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
const DEPTH_MAX: usize = 64;
const META: &str = "k8s.io/apimachinery/pkg/apis/meta/v1";

/// A body, and what of it was not understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub tree: Value,
    /// `unknown field 42 of k8s.io/api/core/v1.PodSpec`
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("the body is no Kubernetes protobuf: it does not begin with \"k8s\\0\"")]
    Magic,
    #[error("the protobuf of {0} ends early or has a malformed field")]
    Malformed(String),
    #[error("the protobuf of {0} has a text that is no UTF-8")]
    Text(String),
    #[error("the protobuf is nested deeper than {DEPTH_MAX}")]
    Depth,
    #[error("no kind {kind:?} is registered for version {api_version:?} in protobuf; send JSON")]
    Kind { api_version: String, kind: String },
}

#[derive(Deserialize)]
struct Facts {
    types: BTreeMap<String, Vec<Row>>,
}

/// Number, JSON name, shape, form, flags: `p`ointer, `o`mitempty, in`l`ine.
type Row = (u32, String, Shape, String, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Shape {
    One,
    List,
    Map,
}

/// One field of a type.
#[derive(Debug)]
struct Field {
    json_name: String,
    shape: Shape,
    form: Form,
    /// A Go pointer: what is on the wire was set.
    pointer: bool,
    omit_empty: bool,
    /// Its members are its parent's in JSON.
    inline: bool,
}

/// How one value stands on the wire.
#[derive(Debug)]
enum Form {
    Text,
    Bytes,
    Int,
    Bool,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// Bytes that are JSON.
    Raw,
    /// A message around a list of texts.
    Items,
    Message(String),
}

type Fields = BTreeMap<u32, Field>;

static TYPES: LazyLock<BTreeMap<String, Fields>> = LazyLock::new(|| {
    let packed = include_bytes!("../data/protobuf.json.deflate");
    let mut text = Vec::new();
    flate2::read::DeflateDecoder::new(&packed[..])
        .read_to_end(&mut text)
        .expect("the committed facts decompress");
    let facts: Facts = serde_json::from_slice(&text).expect("the committed facts are JSON");
    let fields = |rows: Vec<Row>| {
        rows.into_iter()
            .map(|(number, json_name, shape, form, flags)| {
                let has = |flag| flags.contains(flag);
                let (pointer, omit_empty, inline) = (has('p'), has('o'), has('l'));
                (
                    number,
                    Field { json_name, shape, form: form_of(form), pointer, omit_empty, inline },
                )
            })
            .collect()
    };
    facts.types.into_iter().map(|(name, rows)| (name, fields(rows))).collect()
});

fn form_of(name: String) -> Form {
    match name.as_str() {
        "string" => Form::Text,
        "bytes" => Form::Bytes,
        "int" => Form::Int,
        "bool" => Form::Bool,
        "quantity" => Form::Quantity,
        "intorstring" => Form::IntOrString,
        "time" => Form::Time,
        "microtime" => Form::MicroTime,
        "raw" => Form::Raw,
        "items" => Form::Items,
        _ => Form::Message(name),
    }
}

/// Reads a body.
pub fn decode(body: &[u8]) -> Result<Decoded, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let mut reader = Reader { name: "runtime.Unknown", warnings: Vec::new() };
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for item in wire(envelope) {
        match item.map_err(|()| reader.malformed())? {
            (1, Wire::Bytes(type_meta)) => {
                for item in wire(type_meta) {
                    match item.map_err(|()| reader.malformed())? {
                        (1, Wire::Bytes(it)) => api_version = reader.text(it)?,
                        (2, Wire::Bytes(it)) => kind = reader.text(it)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(it)) => raw = it,
            _ => {}
        }
    }
    let unknown = || ProtobufError::Kind { api_version: api_version.clone(), kind: kind.clone() };
    let name = type_name(&api_version, &kind).ok_or_else(unknown)?;
    let mut tree = reader.message(&name, raw, 0)?;
    tree.insert("apiVersion".to_owned(), json!(api_version));
    tree.insert("kind".to_owned(), json!(kind));
    Ok(Decoded { tree: Value::Object(tree), warnings: reader.warnings })
}

/// `apps/v1`, `Deployment` → `k8s.io/api/apps/v1.Deployment`. Options are the same in every group.
fn type_name(api_version: &str, kind: &str) -> Option<String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let package = group.split('.').next().unwrap_or_default();
    [format!("k8s.io/api/{package}/{version}.{kind}"), format!("{META}.{kind}")]
        .into_iter()
        .find(|it| TYPES.contains_key(it))
}

/// One value on the wire.
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// 32 or 64 bits; Kubernetes' kinds have none.
    Fixed,
}

/// The fields of a message, in order; an error ends them.
fn wire(mut rest: &[u8]) -> impl Iterator<Item = Result<(u32, Wire<'_>), ()>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field.ok_or(()))
    })
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Wire<'a>)> {
    let tag = varint(rest)?;
    let number = u32::try_from(tag >> 3).ok().filter(|it| *it > 0)?;
    let mut take = |n: usize| {
        let (taken, after) = rest.split_at_checked(n)?;
        *rest = after;
        Some(taken)
    };
    let value = match tag & 7 {
        0 => Wire::Varint(varint(rest)?),
        1 => take(8).map(|_| Wire::Fixed)?,
        2 => {
            let len = usize::try_from(varint(rest)?).ok()?;
            let (taken, after) = rest.split_at_checked(len)?;
            *rest = after;
            Wire::Bytes(taken)
        }
        5 => take(4).map(|_| Wire::Fixed)?,
        _ => return None,
    };
    Some((number, value))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

struct Reader<'a> {
    /// The type that is read, for errors.
    name: &'a str,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    fn malformed(&self) -> ProtobufError {
        ProtobufError::Malformed(self.name.to_owned())
    }

    fn text(&self, bytes: &[u8]) -> Result<String, ProtobufError> {
        String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Text(self.name.to_owned()))
    }

    fn message(
        &mut self,
        name: &str,
        bytes: &[u8],
        depth: usize,
    ) -> Result<Map<String, Value>, ProtobufError> {
        if depth > DEPTH_MAX {
            return Err(ProtobufError::Depth);
        }
        let malformed = || ProtobufError::Malformed(name.to_owned());
        let fields = TYPES.get(name).ok_or_else(malformed)?;
        let mut out = Map::new();
        for item in wire(bytes) {
            let (number, value) = item.map_err(|()| malformed())?;
            match fields.get(&number) {
                Some(field) => self.field(field, value, &mut out, depth)?,
                None => self.warnings.push(format!("unknown field {number} of {name}")),
            }
        }
        Ok(out)
    }

    fn field(
        &mut self,
        field: &Field,
        wire: Wire<'_>,
        out: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        if field.shape == Shape::Map {
            let (key, value) = self.entry(field, wire, depth)?;
            let slot = out.entry(&field.json_name).or_insert_with(|| json!({}));
            slot.as_object_mut().ok_or_else(|| self.malformed())?.insert(key, value);
            return Ok(());
        }
        let value = self.value(&field.form, wire, depth)?;
        if field.inline {
            if let Value::Object(members) = value {
                out.extend(members);
            }
            return Ok(());
        }
        if field.shape == Shape::List {
            let slot = out.entry(&field.json_name).or_insert_with(|| json!([]));
            slot.as_array_mut().ok_or_else(|| self.malformed())?.push(value);
            return Ok(());
        }
        // What JSON's omitempty leaves out: zeros, but of no struct, and not where a pointer says that they were set.
        let zero = match &value {
            Value::String(it) => it.is_empty(),
            Value::Number(it) => it.as_i64() == Some(0),
            Value::Bool(it) => !it,
            _ => false,
        };
        if !(zero && field.omit_empty && !field.pointer) {
            out.insert(field.json_name.clone(), value);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        field: &Field,
        entry: Wire<'_>,
        depth: usize,
    ) -> Result<(String, Value), ProtobufError> {
        let Wire::Bytes(bytes) = entry else {
            return Err(self.malformed());
        };
        let mut key = String::new();
        let mut value = None;
        for item in wire(bytes) {
            match item.map_err(|()| self.malformed())? {
                (1, Wire::Bytes(it)) => key = self.text(it)?,
                (2, it) => value = Some(self.value(&field.form, it, depth)?),
                _ => {}
            }
        }
        let value = match value {
            Some(value) => value,
            None => self.value(&field.form, Wire::Bytes(&[]), depth)?,
        };
        Ok((key, value))
    }

    fn value(&mut self, form: &Form, wire: Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
        match (form, wire) {
            // Negative numbers are sign-extended to 64 bits, 32-bit ones too.
            (Form::Int, Wire::Varint(it)) => Ok(Value::Number(Number::from(it.cast_signed()))),
            (Form::Bool, Wire::Varint(it)) => Ok(Value::Bool(it != 0)),
            (Form::Text, Wire::Bytes(it)) => Ok(Value::String(self.text(it)?)),
            (Form::Bytes, Wire::Bytes(it)) => Ok(Value::String(STANDARD.encode(it))),
            (Form::Quantity, Wire::Bytes(it)) => {
                let text = self.first_text(it)?;
                Ok(Value::String(if text.is_empty() { "0".to_owned() } else { text }))
            }
            (Form::IntOrString, Wire::Bytes(it)) => self.int_or_string(it),
            (Form::Time, Wire::Bytes(it)) => self.time(it, |at, _| at.rfc3339()),
            (Form::MicroTime, Wire::Bytes(it)) => self.time(it, |at, nanos| {
                let whole = at.rfc3339();
                format!("{}.{:06}Z", whole.trim_end_matches('Z'), nanos / 1000)
            }),
            (Form::Raw, Wire::Bytes(it)) => {
                let raw = wire_first_bytes(it).ok_or_else(|| self.malformed())?;
                if raw.is_empty() {
                    return Ok(Value::Null);
                }
                serde_json::from_slice(raw).map_err(|_| self.malformed())
            }
            (Form::Items, Wire::Bytes(it)) => {
                let texts: Result<Vec<Value>, ProtobufError> = self::wire(it)
                    .map(|item| match item {
                        Ok((1, Wire::Bytes(it))) => Ok(Value::String(self.text(it)?)),
                        _ => Err(self.malformed()),
                    })
                    .collect();
                Ok(Value::Array(texts?))
            }
            (Form::Message(name), Wire::Bytes(it)) => {
                Ok(Value::Object(self.message(name, it, depth + 1)?))
            }
            _ => Err(self.malformed()),
        }
    }

    fn first_text(&self, message: &[u8]) -> Result<String, ProtobufError> {
        let bytes = wire_first_bytes(message).ok_or_else(|| self.malformed())?;
        self.text(bytes)
    }

    /// `type` 0 is the number in field 2, 1 the text in field 3.
    fn int_or_string(&self, message: &[u8]) -> Result<Value, ProtobufError> {
        let (mut is_text, mut number, mut text) = (false, 0, String::new());
        for item in wire(message) {
            match item.map_err(|()| self.malformed())? {
                (1, Wire::Varint(it)) => is_text = it == 1,
                (2, Wire::Varint(it)) => number = it.cast_signed(),
                (3, Wire::Bytes(it)) => text = self.text(it)?,
                _ => {}
            }
        }
        Ok(if is_text { Value::String(text) } else { json!(number) })
    }

    /// Seconds and nanoseconds; an empty message is Go's zero time, which JSON prints as null.
    fn time(
        &self,
        message: &[u8],
        print: impl Fn(Timestamp, u64) -> String,
    ) -> Result<Value, ProtobufError> {
        if message.is_empty() {
            return Ok(Value::Null);
        }
        let (mut seconds, mut nanos) = (0_u64, 0);
        for item in wire(message) {
            match item.map_err(|()| self.malformed())? {
                (1, Wire::Varint(it)) => seconds = it,
                (2, Wire::Varint(it)) => nanos = it.min(999_999_999),
                _ => {}
            }
        }
        let ms = seconds.checked_mul(1000).ok_or_else(|| self.malformed())?;
        Ok(Value::String(print(Timestamp(ms), nanos)))
    }
}

/// The bytes of field 1; empty where it is not there.
fn wire_first_bytes(message: &[u8]) -> Option<&[u8]> {
    let mut found = &[][..];
    for item in wire(message) {
        if let (1, Wire::Bytes(it)) = item.ok()? {
            found = it;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests;
