#!/usr/bin/env python3
"""Write src/each_type.rs: one line for each type of k8s-openapi that has a schema.

    list_types.py ~/.cargo/registry/src/INDEX/k8s-openapi-0.29.0/src/v1_36
"""
import pathlib
import re
import sys

SCHEMA = re.compile(
    r'impl crate::schemars::JsonSchema for (\w+) \{\s*fn schema_name\(\) -> [^{]*\{\s*"([^"]+)"')

names = set()
for source in pathlib.Path(sys.argv[1]).rglob("*.rs"):
    for rust, name in SCHEMA.findall(source.read_text()):
        module = [part.replace("-", "_") for part in name.split(".")[2:-1]]
        names.add("::".join(["k8s_openapi", *module, rust]))
lines = [
    "//! The types whose descriptions are extracted.",
    "//!",
    "//! Made by list_types.py from k8s-openapi 0.29 (v1_36); a macro, because Rust cannot list a crate's types.",
    "",
    "macro_rules! each_type {",
    "    ($with:ident) => {",
    *[f"        $with!({name});" for name in sorted(names)],
    "    };",
    "}",
    "pub(crate) use each_type;",
    "",
]
(pathlib.Path(__file__).parent / "src" / "each_type.rs").write_text("\n".join(lines))
