#!/usr/bin/env python3
"""Makes data/protobuf.json.deflate: the protobuf field numbers of Kubernetes' types.

A Go program keeps the struct tags of its types (`json:"replicas,omitempty" protobuf:"varint,1,opt,name=replicas"`), and
kubectl holds all types of the API; so the facts are read from a kubectl of the wished version, without its source:

    tools/protobuf_facts.py /usr/bin/kubectl.1.36 data/protobuf.json.deflate

Works on a static (not PIE) 64-bit little-endian ELF of Go 1.18 or later.
"""
import json, re, struct, subprocess, sys, zlib

path, out = sys.argv[1], sys.argv[2]
data = open(path, "rb").read()
sections = {}
shoff, = struct.unpack_from("<Q", data, 0x28)
shentsize, shnum, shstrndx = struct.unpack_from("<HHH", data, 0x3A)
rows = [struct.unpack_from("<IIQQQQIIQQ", data, shoff + i * shentsize) for i in range(shnum)]
names = rows[shstrndx][4]
for name, _, _, addr, off, size, *_ in rows:
    end = data.index(b"\0", names + name)
    sections[data[names + name:end].decode()] = (addr, off, size)
segments = [it for it in sections.values() if it[0]]
TYPES = sections[".rodata"][0]


def at(address):
    for addr, off, size in segments:
        if addr <= address < addr + size:
            return off + address - addr
    raise ValueError(hex(address))


def u(fmt, address):
    return struct.unpack_from("<" + fmt, data, at(address))[0]


def varint(offset):
    value = shift = 0
    while True:
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80:
            return value, offset


def name_at(address):
    """(text, tag, embedded) of a runtime name."""
    offset = at(address)
    flags = data[offset]
    length, offset = varint(offset + 1)
    text, tag = data[offset:offset + length].decode(), ""
    if flags & 2:
        length, tag_at = varint(offset + length)
        tag = data[tag_at:tag_at + length].decode()
    return text, tag, bool(flags & 8)


KIND = {1: "bool", 2: "int", 3: "int", 4: "int", 5: "int", 6: "int", 7: "int", 8: "int", 9: "int", 10: "int",
        11: "int", 13: "double", 14: "double", 20: "interface", 21: "map", 22: "ptr", 23: "slice", 24: "string",
        25: "struct"}
# Where the uncommon part begins, behind each kind's own.
BEHIND = {"struct": 80, "slice": 56, "ptr": 56, "map": None}


def kind(t):
    return KIND.get(u("B", t + 23) & 31, "other")


def qualified(t):
    """`k8s.io/api/core/v1.Pod`; None for a type without a name."""
    if not u("B", t + 20) & 1 or kind(t) == "map":
        return None
    uncommon = t + BEHIND.get(kind(t), 48)
    package = name_at(TYPES + u("i", uncommon))[0] if u("i", uncommon) else ""
    text = name_at(TYPES + u("i", t + 40))[0].lstrip("*")
    return f"{package}.{text.rsplit('.', 1)[-1]}" if package else None


def fields(t):
    start, count = u("Q", t + 56), u("Q", t + 64)
    for i in range(count):
        at_field = start + 24 * i
        text, tag, embedded = name_at(u("Q", at_field))
        yield text, tag, embedded, u("Q", at_field + 8)


SPECIAL = {
    "k8s.io/apimachinery/pkg/api/resource.Quantity": "quantity",
    "k8s.io/apimachinery/pkg/util/intstr.IntOrString": "intorstring",
    "k8s.io/apimachinery/pkg/apis/meta/v1.Time": "time",
    "k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime": "microtime",
    "k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1": "raw",
    "k8s.io/apimachinery/pkg/runtime.RawExtension": "raw",
}
types, todo = {}, []


def value_of(t):
    """The wire form of one value of this type."""
    k = kind(t)
    if k == "ptr":
        return value_of(u("Q", t + 48))
    if k in ("bool", "int", "double", "string"):
        return k
    if k == "slice":
        element = u("Q", t + 48)
        if kind(element) == "int" and u("Q", element) == 1:
            return "bytes"
        return "items" if qualified(t) else None  # a named list is a message around its items
    if k == "struct":
        q = qualified(t)
        if q in SPECIAL:
            return SPECIAL[q]
        todo.append(t)
        return q
    return None


def row(text, tag, embedded, t):
    protobuf = re.search(r'protobuf:"([^"]*)"', tag)
    js = re.search(r'json:"([^"]*)"', tag)
    if not protobuf or protobuf[1] == "-":
        return None
    number = int(protobuf[1].split(",")[1])
    js = (js[1] if js else text).split(",")
    flags = "".join(f for f, on in (
        ("p", kind(t) == "ptr"), ("o", "omitempty" in js[1:]), ("z", "omitzero" in js[1:]),
        ("l", "inline" in js[1:] or (embedded and not js[0]))) if on)
    inner = u("Q", t + 48) if kind(t) == "ptr" else t
    if kind(inner) == "map":
        return [number, js[0], "map", value_of(u("Q", inner + 56)), flags]
    value = value_of(inner)
    repeated = protobuf[1].split(",")[2] == "rep" or value is None
    if kind(inner) == "slice" and value != "bytes" and repeated:
        return [number, js[0], "list", value_of(u("Q", inner + 48)), flags]
    return [number, js[0], "one", value, flags]


addr, off, size = sections[".typelink"]
for i in range(size // 4):
    t = TYPES + struct.unpack_from("<i", data, off + 4 * i)[0]
    if kind(t) == "ptr":
        element = u("Q", t + 48)
        if kind(element) == "struct":
            q = qualified(element) or ""
            if re.fullmatch(r"k8s\.io/api/\w+/v[12]\.\w+", q) or re.fullmatch(
                    r"k8s\.io/apimachinery/pkg/apis/meta/v1\.\w+Options", q):
                todo.append(element)
while todo:
    t = todo.pop()
    q = qualified(t)
    if q in types or q is None:
        continue
    types[q] = []
    types[q] = [it for it in (row(*f) for f in fields(t)) if it]
types = {q: it for q, it in types.items() if it}
for q, it in types.items():
    for number, name, shape, value, flags in it:
        assert value is not None, (q, name)
# Fields younger than the kubectl that was at hand (1.33), numbers as in the k8s-pb crate 0.9.0 (Kubernetes 1.35). A newer
# kubectl knows them itself, and then its own facts stand.
CORE = "k8s.io/api/core/v1."
NEWER = {
    CORE + "Container": [[25, "restartPolicyRules", "list", CORE + "ContainerRestartRule", "o"]],
    CORE + "EphemeralContainerCommon": [[25, "restartPolicyRules", "list", CORE + "ContainerRestartRule", "o"]],
    CORE + "ContainerRestartRule": [[1, "action", "one", "string", "o"],
                                    [2, "exitCodes", "one", CORE + "ContainerRestartRuleOnExitCodes", "po"]],
    CORE + "ContainerRestartRuleOnExitCodes": [[1, "operator", "one", "string", "o"], [2, "values", "list", "int", "o"]],
    CORE + "EnvVarSource": [[5, "fileKeyRef", "one", CORE + "FileKeySelector", "po"]],
    CORE + "FileKeySelector": [[1, "volumeName", "one", "string", ""], [2, "path", "one", "string", ""],
                               [3, "key", "one", "string", ""], [4, "optional", "one", "bool", "po"]],
    CORE + "PodSpec": [[41, "hostnameOverride", "one", "string", "po"],
                       [42, "workloadRef", "one", CORE + "WorkloadReference", "po"]],
    CORE + "WorkloadReference": [[1, "name", "one", "string", ""], [2, "podGroup", "one", "string", ""],
                                 [3, "podGroupReplicaKey", "one", "string", "o"]],
    CORE + "VolumeProjection": [[6, "podCertificate", "one", CORE + "PodCertificateProjection", "po"]],
    CORE + "PodCertificateProjection": [
        [1, "signerName", "one", "string", "o"], [2, "keyType", "one", "string", "o"],
        [3, "maxExpirationSeconds", "one", "int", "po"], [4, "credentialBundlePath", "one", "string", "o"],
        [5, "keyPath", "one", "string", "o"], [6, "certificateChainPath", "one", "string", "o"],
        [7, "userAnnotations", "map", "string", "o"]],
    CORE + "NodeStatus": [[14, "declaredFeatures", "list", "string", "o"]],
    CORE + "PodStatus": [[18, "extendedResourceClaimStatus", "one", CORE + "PodExtendedResourceClaimStatus", "po"],
                         [20, "resources", "one", CORE + "ResourceRequirements", "po"]],
    CORE + "PodExtendedResourceClaimStatus": [
        [1, "requestMappings", "list", CORE + "ContainerExtendedResourceRequest", ""],
        [2, "resourceClaimName", "one", "string", ""]],
    CORE + "ContainerExtendedResourceRequest": [[1, "containerName", "one", "string", ""],
                                                [2, "resourceName", "one", "string", ""],
                                                [3, "requestName", "one", "string", ""]],
    "k8s.io/api/storage/v1.CSIDriverSpec": [[10, "serviceAccountTokenInSecrets", "one", "bool", "po"]],
}
for q, rows in NEWER.items():
    known = {it[0] for it in types.setdefault(q, [])}
    types[q] += [it for it in rows if it[0] not in known]
version = json.loads(subprocess.check_output([path, "version", "--client", "-o", "json"]))
version = version["clientVersion"]["gitVersion"]
text = json.dumps({"version": version, "types": dict(sorted(types.items()))}, separators=(",", ":"))
packed = zlib.compressobj(9, zlib.DEFLATED, -15)
blob = packed.compress(text.encode()) + packed.flush()
open(out, "wb").write(blob)
print(f"{version}: {len(types)} types, {sum(map(len, types.values()))} fields, {len(text)} bytes, {len(blob)} packed")
