//! One kind's typed field schema: what each field is, how its lists merge, who its elements are.
//!
//! A schema is a root in a table of nodes, so that 771 definitions that refer to each other (some to themselves)
//! cost a few hundred kilobytes and no reference counting. The built-in table is made once, from the compressed
//! facts in data/; a CustomResourceDefinition will bring a table of its own, which is why `Schema` holds an `Arc`.

mod facts;

pub(crate) use facts::FACTS;

use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// A kind and the root of its fields.
#[derive(Debug, Clone)]
pub struct Schema {
    table: Arc<Table>,
    root: u32,
    pub group: String,
    pub version: String,
    pub kind: String,
}

static BUILT_IN: LazyLock<Arc<Table>> = LazyLock::new(|| Arc::new(facts::load()));

/// Sorted by group, version and kind: every request asks here, so looking up makes no strings.
static KINDS: LazyLock<Vec<Schema>> = LazyLock::new(|| by_kind(&BUILT_IN));

impl Schema {
    /// The schema of a kind of Kubernetes 1.36. The core group is `""`. Lists (`PodList`) are kinds too.
    pub fn of(group: &str, version: &str, kind: &str) -> Option<&'static Schema> {
        let found = KINDS.binary_search_by(|schema| schema.name().cmp(&(group, version, kind)));
        found.ok().map(|index| &KINDS[index])
    }

    fn name(&self) -> (&str, &str, &str) {
        (&self.group, &self.version, &self.kind)
    }

    pub fn root(&self) -> Node<'_> {
        Node { table: &self.table, index: self.root }
    }

    /// The node at a dotted path, through lists: `spec.template.spec.containers.image`.
    pub fn at(&self, path: &str) -> Option<Node<'_>> {
        path.split('.').try_fold(self.root(), |node, name| node.through_lists().child(name))
    }

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// All definitions, by name; for documents.
pub(crate) fn definition(name: &str) -> Option<(&'static Definition, Node<'static>)> {
    let table: &'static Table = &BUILT_IN;
    let index = *table.by_name.get(name)?;
    Some((&table.definitions[index as usize], Node { table, index: table.node_of[index as usize] }))
}

/// The Kubernetes version that the facts come from, for fingerprints of documents.
pub(crate) fn facts_version() -> &'static str {
    &BUILT_IN.version
}

fn by_kind(table: &Arc<Table>) -> Vec<Schema> {
    let mut kinds = Vec::new();
    for (definition, &root) in table.definitions.iter().zip(&table.node_of) {
        for gvk in &definition.kinds {
            let (group, version) = (gvk.group.to_string(), gvk.version.to_string());
            let schema =
                Schema { table: table.clone(), root, group, version, kind: gvk.kind.to_string() };
            kinds.push(schema);
        }
    }
    kinds.sort_by(|a, b| a.name().cmp(&b.name()));
    kinds
}

/// Every definition and every use of one.
#[derive(Debug, Default)]
pub(crate) struct Table {
    version: String,
    rows: Vec<Row>,
    definitions: Vec<Definition>,
    node_of: Vec<u32>,
    by_name: BTreeMap<Box<str>, u32>,
}

#[derive(Debug)]
enum Row {
    Scalar(Scalar),
    Struct { definition: u32, atomic: bool },
    Map { value: u32, atomic: bool },
    List { items: u32, list_type: ListType, keys: Box<[Box<str>]> },
}

/// A named type of the API: its fields in order, which are required, and the kinds it stands for.
#[derive(Debug)]
pub(crate) struct Definition {
    pub name: Box<str>,
    pub kinds: Vec<KindName>,
    pub fields: Vec<FieldRow>,
    pub required: Vec<Box<str>>,
    pub atomic: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KindName {
    pub group: Box<str>,
    pub version: Box<str>,
    pub kind: Box<str>,
}

#[derive(Debug)]
pub(crate) struct FieldRow {
    pub name: Box<str>,
    node: u32,
    required: bool,
    strategy: PatchStrategy,
    merge_key: Option<Box<str>>,
    default: Option<Box<str>>,
    granular: bool,
}

/// How a value without parts is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// Any JSON value.
    Any,
    /// Any JSON object; its fields belong to its writer (RawExtension, FieldsV1).
    Object,
    Boolean,
    Int32,
    Int64,
    Double,
    Text,
    /// Base64 text.
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
}

/// Who an element of a list is (`x-kubernetes-list-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// One value, owned whole.
    Atomic,
    /// Elements are their value.
    Set,
    /// Elements are their key fields.
    Map,
}

/// What strategic merge does with a field (`x-kubernetes-patch-strategy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// A list is merged by its merge key, or as a set of scalars.
    pub merge: bool,
    /// A map keeps only what `$retainKeys` names.
    pub retain_keys: bool,
    /// Written `replace` in the document; the default for lists, an exception for maps.
    pub replace: bool,
}

/// One node of a schema: a cursor, cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    table: &'a Table,
    index: u32,
}

/// What a node is.
#[derive(Debug, Clone, Copy)]
pub enum Shape<'a> {
    Scalar(Scalar),
    Struct(Struct<'a>),
    Map(Node<'a>),
    List(List<'a>),
}

#[derive(Debug, Clone, Copy)]
pub struct List<'a> {
    pub items: Node<'a>,
    pub list_type: ListType,
    /// The key fields of a `ListType::Map`.
    pub keys: &'a [Box<str>],
}

#[derive(Debug, Clone, Copy)]
pub struct Struct<'a> {
    table: &'a Table,
    definition: &'a Definition,
}

/// A field of a struct.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    table: &'a Table,
    row: &'a FieldRow,
}

impl<'a> Node<'a> {
    pub fn shape(self) -> Shape<'a> {
        let at = |index| Node { table: self.table, index };
        match &self.table.rows[self.index as usize] {
            Row::Scalar(scalar) => Shape::Scalar(*scalar),
            Row::Struct { definition, .. } => Shape::Struct(Struct {
                table: self.table,
                definition: &self.table.definitions[*definition as usize],
            }),
            Row::Map { value, .. } => Shape::Map(at(*value)),
            Row::List { items, list_type, keys } => {
                Shape::List(List { items: at(*items), list_type: *list_type, keys })
            }
        }
    }

    /// A map or struct that is owned whole (`x-kubernetes-map-type: atomic`).
    pub fn is_atomic(self) -> bool {
        match &self.table.rows[self.index as usize] {
            Row::Struct { atomic, .. } | Row::Map { atomic, .. } => *atomic,
            Row::List { list_type, .. } => *list_type == ListType::Atomic,
            Row::Scalar(_) => true,
        }
    }

    /// The node of a field of a struct or of a value of a map.
    pub fn child(self, name: &str) -> Option<Node<'a>> {
        match self.shape() {
            Shape::Struct(fields) => Some(fields.field(name)?.node()),
            Shape::Map(value) => Some(value),
            Shape::List(_) | Shape::Scalar(_) => None,
        }
    }

    pub fn list(self) -> Option<List<'a>> {
        match self.shape() {
            Shape::List(list) => Some(list),
            _ => None,
        }
    }

    /// The definition that this node is a use of.
    pub(crate) fn definition(self) -> Option<&'a Definition> {
        let definitions = &self.table.definitions;
        match &self.table.rows[self.index as usize] {
            Row::Struct { definition, .. } => Some(&definitions[*definition as usize]),
            // Definitions' own nodes come first in the table, in the definitions' order.
            _ => definitions.get(self.index as usize),
        }
    }

    pub(crate) fn through_lists(self) -> Node<'a> {
        match self.shape() {
            Shape::List(list) => list.items.through_lists(),
            _ => self,
        }
    }

    /// The Go type's name as its decoder prints it: `int32`, `v1.PodSpec`, `map[string]string`.
    pub fn go_type(self) -> String {
        match self.shape() {
            Shape::Scalar(scalar) => scalar.go_type().to_owned(),
            Shape::Struct(it) => format!("{}.{}", it.package(), it.type_name()),
            Shape::Map(value) => format!("map[string]{}", value.go_type()),
            Shape::List(list) => format!("[]{}", list.items.go_type()),
        }
    }
}

impl Scalar {
    fn go_type(self) -> &'static str {
        match self {
            Scalar::Any => "interface {}",
            Scalar::Object => "map[string]interface {}",
            Scalar::Boolean => "bool",
            Scalar::Int32 => "int32",
            Scalar::Int64 => "int64",
            Scalar::Double => "float64",
            Scalar::Text => "string",
            Scalar::Bytes => "[]uint8",
            Scalar::Time => "v1.Time",
            Scalar::MicroTime => "v1.MicroTime",
            Scalar::Quantity => "resource.Quantity",
            Scalar::IntOrString => "intstr.IntOrString",
        }
    }
}

impl<'a> Struct<'a> {
    pub fn field(self, name: &str) -> Option<Field<'a>> {
        let fields = &self.definition.fields; // sorted by name
        let found = fields.binary_search_by(|row| (*row.name).cmp(name)).ok()?;
        Some(Field { table: self.table, row: &fields[found] })
    }

    pub fn fields(self) -> impl Iterator<Item = Field<'a>> {
        self.definition.fields.iter().map(move |row| Field { table: self.table, row })
    }

    /// `io.k8s.api.apps.v1.DeploymentSpec`.
    pub fn definition_name(self) -> &'a str {
        &self.definition.name
    }

    /// `DeploymentSpec`.
    pub fn type_name(self) -> &'a str {
        self.definition.name.rsplit('.').next().unwrap_or_default()
    }

    fn package(self) -> &'a str {
        self.definition.name.rsplit('.').nth(1).unwrap_or_default()
    }
}

impl<'a> Field<'a> {
    pub fn name(self) -> &'a str {
        &self.row.name
    }

    pub fn node(self) -> Node<'a> {
        Node { table: self.table, index: self.row.node }
    }

    pub fn required(self) -> bool {
        self.row.required
    }

    pub fn strategy(self) -> PatchStrategy {
        self.row.strategy
    }

    /// The key by which strategic merge finds an element of this list.
    pub fn merge_key(self) -> Option<&'a str> {
        self.row.merge_key.as_deref()
    }

    /// What an absent key field of a list element stands for.
    pub fn default(self) -> Option<Value> {
        self.row.default.as_deref().map(Value::from)
    }

    /// Written `granular`, against an atomic definition.
    pub(crate) fn granular(self) -> bool {
        self.row.granular
    }
}

#[cfg(test)]
mod tests;
