//! The architecture as a list of absent things (ARCHITECTURE.md, "Fences"); each test names the one it guards.

use kactor_tests::tidy::{self, Member, Source};

/// Which folders a folder's crates may use. The longest matching prefix counts; a crate may always use its
/// siblings that a row names.
const ARROWS: &[(&str, &[&str])] = &[
    ("wire/protocol", &[]),
    ("wire/streams", &[]),
    ("wire/schema", &["wire/protocol"]),
    ("wire/objects", &["wire/protocol", "wire/schema"]),
    ("wire/quic", &["wire/protocol"]),
    ("actors/runtime", &["wire"]),
    ("raft", &["actors/runtime", "wire", "raft"]),
    ("actors/view", &["actors/runtime", "raft/store", "wire"]),
    ("actors/api", &["actors/runtime", "raft/store", "wire"]),
    ("actors/gateway", &["actors/api", "actors/runtime", "wire"]),
    ("actors/controllers", &["actors/api", "actors/view", "actors/runtime", "raft/store", "wire"]),
    ("actors/scheduler", &["actors/api", "actors/view", "actors/runtime", "raft/store", "wire"]),
    ("actors/cluster", &["actors/links", "actors/runtime", "raft/store", "wire"]),
    ("actors/sessions", &["actors/api", "actors/view", "actors/runtime", "raft/store", "wire"]),
    ("actors/links", &["actors/runtime", "wire"]),
    ("node", &["actors/runtime", "wire", "node"]),
    ("simulations", &["node", "actors", "raft", "wire"]),
    ("cli", &["simulations", "node", "actors", "raft", "wire"]),
    ("tests", &["simulations", "node", "actors", "raft", "wire"]),
];

fn allowed(folder: &str) -> &'static [&'static str] {
    let mut rows: Vec<_> = ARROWS.iter().filter(|(at, _)| within(folder, at)).collect();
    rows.sort_by_key(|(at, _)| at.len());
    rows.last().unwrap_or_else(|| panic!("no arrows are written down for {folder}")).1
}

fn within(path: &str, folder: &str) -> bool {
    path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

#[test]
fn dependencies_between_crates_go_one_way() {
    let members = tidy::members(&tidy::metadata());
    let folder_of = |name: &str| members.iter().find(|it| it.name == name).map(|it| &it.folder);
    let mut wrong = Vec::new();
    for Member { name, folder, uses } in &members {
        for used in uses {
            let Some(target) = folder_of(used) else {
                continue;
            };
            if !allowed(folder).iter().any(|it| within(target, it)) {
                wrong.push(format!("{name} ({folder}) must not use {used} ({target})"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_node_reaches_neither_raft_nor_the_gateway_even_indirectly() {
    let members = tidy::members(&tidy::metadata());
    for start in members.iter().filter(|it| within(&it.folder, "node")) {
        let mut seen: Vec<&str> = vec![&start.name];
        let mut next = 0;
        while next < seen.len() {
            let here = members.iter().find(|it| it.name == seen[next]);
            for used in here.into_iter().flat_map(|it| &it.uses) {
                if members.iter().any(|it| &it.name == used) && !seen.contains(&used.as_str()) {
                    seen.push(used);
                }
            }
            next += 1;
        }
        for name in seen {
            let folder = &members.iter().find(|it| it.name == name).unwrap().folder;
            let forbidden = within(folder, "raft")
                || (within(folder, "actors") && !within(folder, "actors/runtime"));
            assert!(!forbidden, "{} reaches {name} ({folder})", start.name);
        }
    }
}

#[test]
fn what_tests_may_break_is_in_no_release_build() {
    const GATE: &str = "#[cfg(debug_assertions)]";
    let mut uses = 0;
    for Source { path, text } in tidy::sources().iter().filter(|it| within(&it.path, "cli")) {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            if line.contains("mod trial;") || line.contains("trial::") {
                uses += 1;
                assert_eq!(lines[at.saturating_sub(1)], GATE, "{path}:{}: {line}", at + 1);
            }
        }
    }
    assert_eq!(uses, 2, "the module and the one place that asks it");
    let manifest = std::fs::read_to_string(tidy::root().join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("debug-assertions"), "only cargo's own defaults say where they are");
}

/// A name that may stand only in some places. Places are folders, files, or `*_actor.rs`.
struct Fence {
    names: &'static [&'static str],
    homes: &'static [&'static str],
}

const FENCES: &[Fence] = &[
    // What tests may ask a process to break: `what_tests_may_break_is_in_no_release_build`.
    Fence { names: &["KACTOR_TEST_"], homes: &["cli/src/trial.rs", "tests"] },
    Fence {
        names: &["actix::", "use actix", "actix_rt::"],
        homes: &["actors/runtime", "*_actor.rs"],
    },
    Fence { names: &["quinn::", "use quinn"], homes: &["wire/quic"] },
    Fence {
        names: &["rustls::", "use rustls", "tokio_rustls::"],
        homes: &[
            "wire/quic",
            "actors/gateway/src/listener",
            "actors/gateway/src/rotation",
            "actors/gateway/src/tls",
            "cli/src",
            "node/images/src/registry",
        ],
    },
    Fence { names: &["bincode::", "use bincode"], homes: &["wire/protocol/src/codec.rs"] },
    Fence {
        names: &["openraft::", "use openraft", "sled::", "use sled"],
        homes: &["raft/replica"],
    },
    Fence { names: &["bollard::", "use bollard"], homes: &["node/docker"] },
    Fence { names: &["rtnetlink::", "use rtnetlink", "netlink_packet"], homes: &["node/network"] },
    Fence {
        names: &[
            "Instant::now()",
            "SystemTime::now()",
            "rand::rng()",
            "tokio::spawn(",
            "spawn_local(",
        ],
        homes: &["actors/runtime/src/env", "node/embedded/src/shim", "simulations/src/world.rs"],
    },
    Fence {
        names: &["thread::spawn(", "thread::Builder", "thread::scope("],
        homes: &[
            "actors/runtime/src/env",
            "raft/replica",
            "node/embedded/src/shim",
            "node/network/src/netns.rs", // A namespace belongs to a thread.
        ],
    },
    Fence { names: &["RandomState", "HashMap", "HashSet"], homes: &[] },
    Fence { names: &["unbounded_channel", "mpsc::channel()", "mpsc::unbounded"], homes: &[] },
];

fn at_home(path: &str, homes: &[&str]) -> bool {
    homes.iter().any(|home| match home.strip_prefix('*') {
        Some(ending) => path.ends_with(ending),
        None => path.starts_with(home),
    })
}

#[test]
fn names_stay_inside_their_fences() {
    let mut wrong = Vec::new();
    for source in tidy::sources().iter().filter(|it| !it.path.starts_with("tests/")) {
        for (number, line) in source.production_lines() {
            let code = line.split("//").next().unwrap_or_default();
            for fence in FENCES.iter().filter(|it| !at_home(&source.path, it.homes)) {
                for name in fence.names.iter().filter(|it| code.contains(**it)) {
                    wrong.push(format!(
                        "{}:{number}: `{name}` only in {:?}",
                        source.path, fence.homes
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let silent: Vec<String> = tidy::sources()
        .into_iter()
        .filter(|it| {
            !it.text
                .lines()
                .find(|line| !line.starts_with("#!"))
                .is_some_and(|line| line.starts_with("//! "))
        })
        .map(|it| it.path)
        .collect();
    assert!(silent.is_empty(), "no `//!` line at the head of:\n{}", silent.join("\n"));
}

/// Longer than this a file's rooms are no longer known to a reader.
const FILE_LINES_MAX: usize = 700;

#[test]
fn files_stay_short_enough_to_know() {
    let long: Vec<String> = tidy::sources()
        .iter()
        .map(|it: &Source| (it.production_lines().count(), &it.path))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines, at most {FILE_LINES_MAX}"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn no_drawers() {
    const DRAWERS: &[&str] =
        &["utils.rs", "util.rs", "common.rs", "helpers.rs", "types.rs", "misc.rs", "mod.rs"];
    for source in tidy::sources() {
        let name = source.path.rsplit('/').next().unwrap_or_default();
        assert!(!DRAWERS.contains(&name), "{}: name the file for what it holds", source.path);
    }
}

#[test]
fn nothing_unfinished_is_left() {
    for source in tidy::sources().iter().filter(|it| !it.path.starts_with("tests/")) {
        for (number, line) in source.text.lines().enumerate() {
            for word in ["todo!(", "unimplemented!(", "FIXME", "XXX", "dbg!("] {
                assert!(!line.contains(word), "{}:{}: {word}", source.path, number + 1);
            }
        }
    }
}

#[test]
fn no_build_test_or_script_reads_the_folder_beside_the_checkout() {
    // Spelt in two halves, so that this file does not name it either.
    let beside = ["../", "shared"].concat();
    let absolute = ["/work/", "shared"].concat();
    for source in tidy::files(&["*.rs", "*.toml", "*.sh", "*.py", ".ci/*", "*.yaml"]) {
        for (number, line) in source.text.lines().enumerate() {
            let named = line.contains(&beside) || line.contains(&absolute);
            assert!(!named, "{}:{}: users do not have that folder", source.path, number + 1);
        }
    }
}

/// Every term of one of these may be linked into an Apache-2.0 binary.
const PERMISSIVE: &[&str] = &[
    "Apache-2.0",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "0BSD",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "BSL-1.0",
    "CC0-1.0",
    "Unlicense",
    "CDLA-Permissive-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "bzip2-1.0.6",
];

fn permissive(expression: &str) -> bool {
    // An AND needs every side, an OR one; parentheses only group.
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" AND ").all(|all| all.split(" OR ").any(|one| PERMISSIVE.contains(&one.trim())))
}

/// Packages whose licence was read and allowed by hand, with the reason. The list may only get shorter.
const LICENCES_ALLOWED: &[(&str, &str)] = &[
    (
        "pathrs",
        "MPL-2.0: copyleft of its own files only; linked unchanged, comes with libcontainer",
    ),
    (
        "rust-criu",
        "MIT by its LICENSE file, which its manifest does not name; comes with libcontainer",
    ),
];

#[test]
fn every_licence_is_permissive() {
    let by_hand = |package: &str| {
        LICENCES_ALLOWED.iter().any(|(name, _)| package.split(' ').next() == Some(name))
    };
    let wrong: Vec<String> = tidy::licences(&tidy::metadata())
        .into_iter()
        .filter(|(package, licence)| !permissive(licence) && !by_hand(package))
        .map(|(package, licence)| format!("{package}: {licence}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Heavy crates that stand in the lock file more than once. The list may only get shorter.
const DUPLICATES_ALLOWED: &[&str] = &["nix", "rand", "syn"];

/// Crates that cost a newcomer build time or every binary its size.
const HEAVY: &[&str] = &[
    "tokio",
    "hyper",
    "rustls",
    "ring",
    "aws-lc-rs",
    "regex",
    "serde",
    "serde_json",
    "openraft",
    "rand",
    "clap",
    "actix",
    "futures-util",
    "tracing",
    "time",
    "chrono",
    "openssl-sys",
    "reqwest",
    "syn",
    "nix",
    "prost",
    "tonic",
];

#[test]
fn no_heavy_crate_is_built_twice() {
    let all = tidy::licences(&tidy::metadata());
    let count = |heavy: &str| all.keys().filter(|it| it.split(' ').next() == Some(heavy)).count();
    let wrong: Vec<String> = HEAVY
        .iter()
        .map(|heavy| (heavy, count(heavy), if DUPLICATES_ALLOWED.contains(heavy) { 2 } else { 1 }))
        .filter(|(_, n, allowed)| n > allowed)
        .map(|(heavy, n, _)| format!("{heavy} is built {n} times"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for banned in ["openssl-sys", "aws-lc-sys", "native-tls"] {
        assert_eq!(count(banned), 0, "{banned} needs a C library");
    }
}
