//! The bytes of a whole table, held still; the kernel's own opinion is asked in `tests/kernel.rs`.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect_file;

use super::*;

fn rules() -> Ruleset {
    let endpoint = |last| SocketAddrV4::new(Ipv4Addr::new(10, 244, 0, last), 8080);
    let chain = Balance {
        protocol: Protocol::Tcp,
        endpoints: vec![endpoint(2), endpoint(3)],
        affinity: Affinity::ClientIp,
        source: Source::Masqueraded,
    };
    let name = "external-default/web/tcp/80".to_owned();
    Ruleset {
        table: "kactor_t".to_owned(),
        bridge: "kb-t".to_owned(),
        pod_cidr: "10.244.0.0/24".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        dns_address: Ipv4Addr::new(10, 96, 0, 10),
        pod_cidrs: BTreeSet::from(["10.244.0.0/24".parse().unwrap()]),
        addresses: BTreeMap::from([(
            (Ipv4Addr::new(10, 96, 0, 7), Protocol::Tcp, 80),
            name.clone(),
        )]),
        node_ports: BTreeMap::from([((Protocol::Tcp, 30080), name.clone())]),
        chains: BTreeMap::from([(name, chain)]),
        pods: BTreeSet::from([Ipv4Addr::new(10, 244, 0, 2)]),
        left_out: 0,
    }
}

#[test]
fn the_bytes_that_the_kernel_is_sent_stay_the_same() {
    let mut batch = Batch::begin();
    write(&rules(), &mut batch);
    let bytes = batch.end().bytes;
    let lines: Vec<String> = bytes
        .chunks(32)
        .map(|line| line.iter().map(|it| format!("{it:02x}")).collect::<String>())
        .collect();
    expect_file!["golden.txt"].assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn many_elements_are_cut_into_messages_whose_lengths_fit() {
    let mut rules = rules();
    let chain = rules.chains.keys().next().unwrap().clone();
    for index in 0..3000_u16 {
        rules.node_ports.insert((Protocol::Udp, index), chain.clone());
    }
    let endpoint = |it: u32| SocketAddrV4::new(Ipv4Addr::from(0x0a00_0000 + it), 80);
    rules.chains.get_mut(&chain).unwrap().endpoints = (0..1000).map(endpoint).collect();
    let mut batch = Batch::begin();
    write(&rules, &mut batch);
    assert!(batch.end().bytes.len() > 3000 * 50);
}
