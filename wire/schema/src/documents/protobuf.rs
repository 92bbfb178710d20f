//! gnostic's OpenAPIv2.proto, written by hand: the part of it that our documents use.
//!
//! Each function turns the JSON form of one message into its protobuf form; numbers are the field numbers of
//! github.com/google/gnostic openapiv2/OpenAPIv2.proto. Extensions are YAML text there, and JSON is YAML.

use serde_json::Value;

/// An encoded message.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u32, message: Message) {
        self.bytes(field, &message.0);
    }

    fn text(&mut self, field: u32, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u32, value: &Value) {
        for text in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u32, value: &Value) {
        if value.as_bool() == Some(true) {
            self.varint(u64::from(field) << 3);
            self.varint(1);
        }
    }

    /// A pair of a name (1) and a message (2).
    pub fn named(&mut self, field: u32, name: &str, value: Message) {
        let mut pair = Message::default();
        pair.bytes(1, name.as_bytes());
        pair.message(2, value);
        self.message(field, pair);
    }

    /// A message that is one choice of a `oneof`.
    fn choice(field: u32, message: Message) -> Message {
        let mut outer = Message::default();
        outer.message(field, message);
        outer
    }

    fn extensions(&mut self, field: u32, value: &Value) {
        for (name, value) in value.as_object().into_iter().flatten() {
            if name.starts_with("x-") {
                let mut any = Message::default();
                any.bytes(2, value.to_string().as_bytes());
                self.named(field, name, any);
            }
        }
    }

    pub fn document(
        info: &Value,
        paths: Message,
        definitions: Message,
        security_definitions: &Value,
    ) -> Vec<u8> {
        let mut document = Message::default();
        document.bytes(1, b"2.0");
        let mut encoded = Message::default();
        encoded.text(1, &info["title"]);
        encoded.text(2, &info["version"]);
        document.message(2, encoded);
        document.message(8, paths);
        document.message(9, definitions);
        let (mut security, mut schemes) = (Message::default(), Message::default());
        for (name, scheme) in security_definitions.as_object().into_iter().flatten() {
            security.named(1, name, Message::default());
            schemes.named(1, name, Message::choice(2, Message::api_key(scheme)));
        }
        document.message(12, security);
        document.message(13, schemes);
        document.0
    }

    fn api_key(scheme: &Value) -> Message {
        let mut message = Message::default();
        for (field, name) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
            message.text(field, &scheme[name]);
        }
        message
    }

    pub fn path_item(item: &Value) -> Message {
        let mut message = Message::default();
        for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
            if let Some(operation) = item.get(method) {
                message.message(field, Message::operation(operation));
            }
        }
        for parameter in item["parameters"].as_array().into_iter().flatten() {
            message.message(9, Message::parameter(parameter));
        }
        message
    }

    fn operation(operation: &Value) -> Message {
        let mut message = Message::default();
        message.texts(1, &operation["tags"]);
        message.text(3, &operation["description"]);
        message.text(5, &operation["operationId"]);
        message.texts(6, &operation["produces"]);
        message.texts(7, &operation["consumes"]);
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            message.message(8, Message::parameter(parameter));
        }
        let mut responses = Message::default();
        for (code, response) in operation["responses"].as_object().into_iter().flatten() {
            let mut encoded = Message::default();
            encoded.text(1, &response["description"]);
            if let Some(schema) = response.get("schema") {
                encoded.message(2, Message::choice(1, Message::schema(schema)));
            }
            responses.named(1, code, Message::choice(1, encoded));
        }
        message.message(9, responses);
        message.texts(10, &operation["schemes"]);
        message.extensions(13, operation);
        message
    }

    /// A `ParametersItem`.
    fn parameter(parameter: &Value) -> Message {
        let mut message = Message::default();
        let place = parameter["in"].as_str().unwrap_or_default();
        if place == "body" {
            message.text(2, &parameter["name"]);
            message.text(3, &parameter["in"]);
            message.flag(4, &parameter["required"]);
            message.message(5, Message::schema(&parameter["schema"]));
            return Message::choice(1, Message::choice(1, message));
        }
        // Query and path parameters have the same leading fields, then differ by `allow_empty_value`.
        let (choice, shift) = if place == "path" { (4, 0) } else { (3, 1) };
        message.flag(1, &parameter["required"]);
        message.text(2, &parameter["in"]);
        message.text(3, &parameter["description"]);
        message.text(4, &parameter["name"]);
        message.text(5 + shift, &parameter["type"]);
        message.flag(19 + shift, &parameter["uniqueItems"]);
        Message::choice(1, Message::choice(2, Message::choice(choice, message)))
    }

    pub fn schema(schema: &Value) -> Message {
        let mut message = Message::default();
        message.text(1, &schema["$ref"]);
        message.text(2, &schema["format"]);
        message.text(4, &schema["description"]);
        message.texts(19, &schema["required"]);
        if let Some(additional) = schema.get("additionalProperties") {
            message.message(21, Message::choice(1, Message::schema(additional)));
        }
        if let Some(name) = schema["type"].as_str() {
            let mut type_item = Message::default();
            type_item.bytes(1, name.as_bytes());
            message.message(22, type_item);
        }
        if let Some(items) = schema.get("items") {
            message.message(23, Message::choice(1, Message::schema(items)));
        }
        if let Some(properties) = schema["properties"].as_object() {
            let mut encoded = Message::default();
            for (name, property) in properties {
                encoded.named(1, name, Message::schema(property));
            }
            message.message(25, encoded);
        }
        message.extensions(31, schema);
        message
    }
}
