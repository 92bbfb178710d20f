//! `/etc/hosts` and `/etc/resolv.conf` of a pod. Pure.
//!
//! Upstream: kubelet `hostsFileContent` and network/dns (`ClusterFirst` searches `NS.svc.DOMAIN svc.DOMAIN DOMAIN`
//! and the host's, with `ndots:5`).

use std::net::IpAddr;

use crate::spec::{DnsPolicy, Pod};

/// Bounds of resolv.conf that the C library keeps (kubelet MaxDNSNameservers, MaxDNSSearchPaths).
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

/// The pod's `/etc/hosts`.
pub fn hosts(pod: &Pod, hostname: &str, addresses: &[String], domain: &str) -> String {
    let mut out = String::from("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n");
    out.push_str("::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n");
    out.push_str("fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
    for address in addresses {
        match &pod.spec.subdomain {
            Some(subdomain) => {
                let full =
                    format!("{hostname}.{subdomain}.{}.svc.{domain}", pod.metadata.namespace);
                out.push_str(&format!("{address}\t{full}\t{hostname}\n"));
            }
            None => out.push_str(&format!("{address}\t{hostname}\n")),
        }
    }
    if !pod.spec.host_aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for alias in &pod.spec.host_aliases {
            out.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
        }
    }
    out
}

/// What a resolver is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads a resolv.conf.
    pub fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") => out.nameservers.extend(words.next().map(str::to_owned)),
                Some("search") => out.searches = words.map(str::to_owned).collect(),
                Some("options") => out.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        out
    }

    pub fn print(&self) -> String {
        let mut out = String::new();
        if !self.searches.is_empty() {
            out.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for it in &self.nameservers {
            out.push_str(&format!("nameserver {it}\n"));
        }
        if !self.options.is_empty() {
            out.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        out
    }
}

/// The pod's resolver settings.
pub fn resolver(pod: &Pod, host: &Resolver, cluster: Option<IpAddr>, domain: &str) -> Resolver {
    let cluster_first = match pod.spec.dns_policy {
        DnsPolicy::ClusterFirst => !pod.spec.host_network,
        DnsPolicy::ClusterFirstWithHostNet => true,
        DnsPolicy::Default | DnsPolicy::None => false,
    };
    let mut out = match (pod.spec.dns_policy, cluster_first, cluster) {
        (DnsPolicy::None, ..) => Resolver::default(),
        (_, true, Some(address)) => {
            let namespace = &pod.metadata.namespace;
            let mut searches = vec![
                format!("{namespace}.svc.{domain}"),
                format!("svc.{domain}"),
                domain.to_owned(),
            ];
            searches.extend(host.searches.iter().cloned());
            Resolver {
                nameservers: vec![address.to_string()],
                searches,
                options: vec!["ndots:5".to_owned()],
            }
        }
        _ => host.clone(),
    };
    let config = &pod.spec.dns_config;
    out.nameservers.extend(config.nameservers.iter().cloned());
    out.searches.extend(config.searches.iter().cloned());
    for option in &config.options {
        let name = option.name.as_str();
        out.options.retain(|it| it.split(':').next() != Some(name));
        out.options.push(match &option.value {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        });
    }
    dedup(&mut out.nameservers, NAMESERVERS_MAX);
    dedup(&mut out.searches, SEARCHES_MAX);
    out
}

fn dedup(list: &mut Vec<String>, len_max: usize) {
    let mut kept: Vec<String> = Vec::new();
    for it in list.drain(..) {
        if !kept.contains(&it) && kept.len() < len_max {
            kept.push(it);
        }
    }
    *list = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        let json = format!(
            r#"{{"metadata":{{"name":"web","namespace":"ns","uid":"u"}},"spec":{{"containers":[]{spec}}}}}"#
        );
        crate::spec::parse(json.as_bytes()).unwrap()
    }

    fn resolve(spec: &str) -> String {
        let host = Resolver::parse(
            "# c\nsearch corp.example\nnameserver 192.0.2.53 # x\noptions timeout:1\n",
        );
        resolver(&pod(spec), &host, "10.96.0.10".parse().ok(), "cluster.local").print()
    }

    const CLUSTER: &str = "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.96.0.10\noptions ndots:5\n";
    const HOST: &str = "search corp.example\nnameserver 192.0.2.53\noptions timeout:1\n";

    #[test]
    fn policies_choose_between_cluster_and_host() {
        for (spec, expected) in [
            ("", CLUSTER),
            (r#","dnsPolicy":"Default""#, HOST),
            (r#","hostNetwork":true"#, HOST),
            (r#","hostNetwork":true,"dnsPolicy":"ClusterFirstWithHostNet""#, CLUSTER),
            (
                r#","dnsPolicy":"None","dnsConfig":{"nameservers":["1.1.1.1"]}"#,
                "nameserver 1.1.1.1\n",
            ),
        ] {
            assert_eq!(resolve(spec), expected, "{spec}");
        }
    }

    #[test]
    fn a_pods_own_options_replace_those_of_the_same_name() {
        let got = resolve(
            r#","dnsConfig":{"options":[{"name":"ndots","value":"1"},{"name":"edns0"}],"searches":["a.b","cluster.local"]}"#,
        );
        assert!(got.contains("options ndots:1 edns0\n"), "{got}");
        assert!(
            got.starts_with(
                "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example a.b\n"
            ),
            "{got}"
        );
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let it = pod(r#","subdomain":"s","hostAliases":[{"ip":"1.2.3.4","hostnames":["a","b"]}]"#);
        let got = hosts(&it, "web", &["10.0.0.9".to_owned()], "cluster.local");
        assert!(got.contains("10.0.0.9\tweb.s.ns.svc.cluster.local\tweb\n"), "{got}");
        assert!(got.ends_with("1.2.3.4\ta\tb\n"), "{got}");
    }
}
