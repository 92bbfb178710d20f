#!/usr/bin/env python3
"""Write data/facts.json.deflate: the typed facts of the Kubernetes API, without its prose.

Run by hand when the Kubernetes version changes, never by the build:
    tools/facts.py PATH/TO/swagger.json [VERSION]
The format is described in README.md and read by src/facts.rs.
"""
import json
import pathlib
import sys
import zlib

SCALARS = {
    ("string", None): "s",
    ("string", "byte"): "y",
    ("integer", "int32"): "i",
    ("integer", "int64"): "l",
    ("number", "double"): "d",
    ("boolean", None): "b",
}
# What these definitions accept cannot be read off the document; their Go types decode by hand.
SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "micro-time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "object",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch": "object",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "object",
}
# Defaults of associative-list keys, which the document leaves out (they are in the Go markers).
KEY_DEFAULTS = {
    ("io.k8s.api.core.v1.ContainerPort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.ServicePort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.LocalObjectReference", "name"): "",
    ("io.k8s.api.core.v1.ObjectReference", "name"): "",
}
OPTIONS = {
    "x-kubernetes-list-type": "lt",
    "x-kubernetes-list-map-keys": "lk",
    "x-kubernetes-map-type": "mt",
    "x-kubernetes-patch-strategy": "ps",
    "x-kubernetes-patch-merge-key": "pk",
}


def type_of(schema):
    if "$ref" in schema:
        return "@" + schema["$ref"].removeprefix("#/definitions/")
    kind = schema.get("type")
    if kind == "array":
        return "a" + type_of(schema["items"])
    if kind == "object":
        if "additionalProperties" not in schema:
            raise ValueError(f"a free object inside a definition: {schema}")
        return "m" + type_of(schema["additionalProperties"])
    return SCALARS[kind, schema.get("format")]


def field(definition, name, schema):
    options = {short: schema[long] for long, short in OPTIONS.items() if long in schema}
    if (definition, name) in KEY_DEFAULTS:
        options["d"] = KEY_DEFAULTS[definition, name]
    kind = type_of(schema)
    return [kind, options] if options else kind


def definition(name, schema):
    row = {"n": name}
    gvks = schema.get("x-kubernetes-group-version-kind", [])
    if gvks:
        row["g"] = [[g["group"], g["version"], g["kind"]] for g in gvks]
    if name in SPECIAL:
        row["k"] = SPECIAL[name]
    elif "type" not in schema and "properties" not in schema:
        row["k"] = "any"
    else:
        assert schema["type"] == "object", name
        row["p"] = {f: field(name, f, s) for f, s in sorted(schema.get("properties", {}).items())}
    if schema.get("required"):
        row["r"] = schema["required"]
    if schema.get("x-kubernetes-map-type") == "atomic":
        row["a"] = 1
    return row


def main():
    document = json.loads(pathlib.Path(sys.argv[1]).read_text())
    rows = [definition(n, s) for n, s in sorted(document["definitions"].items())]
    version = sys.argv[2] if len(sys.argv) > 2 else "v1.36.0"
    text = json.dumps({"version": version, "definitions": rows}, separators=(",", ":"))
    target = pathlib.Path(__file__).parent.parent / "data" / "facts.json.deflate"
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    target.write_bytes(compressor.compress(text.encode()) + compressor.flush())
    print(f"{len(rows)} definitions, {len(text)} bytes of facts, {target.stat().st_size} compressed")


if __name__ == "__main__":
    main()
