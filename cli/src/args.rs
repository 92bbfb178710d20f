//! The command line: every command, flag and example.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Kubernetes as an actor system: one binary, one command, a cluster that kubectl already knows.
#[derive(Debug, Parser)]
#[command(
    name = "kactor",
    version,
    after_help = "Examples:\n  kactor up                      a one-host cluster, in front; Ctrl-C stops it\n  kactor up --demo               … with three small pods and a service to look at\n  kactor up --runtime hollow     pods that pretend: no root, no containers\n  kactor status --wait           blocks until the cluster serves\n  kactor why pod/default/web-0   why an object is as it is"
)]
pub struct Cli {
    /// Log more than warnings (stderr). KACTOR_LOG=kactor_agent=debug is finer.
    #[arg(short, long, global = true)]
    pub verbose: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start this host: control plane and node, in front.
    #[command(
        after_help = "Examples:\n  kactor up --demo\n  kactor up --runtime hollow --listen 127.0.0.1:7443 --data-dir /tmp/k --kubeconfig /tmp/k.yaml\n  kactor up --pod-cidr 10.42.0.0/16 --service-cidr 10.43.0.0/16\n  kactor up --join 192.0.2.1:6443 --token …    one more host of that cluster"
    )]
    Up(UpArgs),
    /// Tokens that let further hosts into the cluster.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Take a host out of the cluster for good: its pods move, its vote goes.
    #[command(
        after_help = "Examples:\n  kactor leave                        this host\n  kactor leave --host n3 --yes        one that is gone, from another control host"
    )]
    Leave(LeaveArgs),
    /// Stop the kactor of a data directory; its pods stay.
    #[command(
        after_help = "Examples:\n  kactor down             pods go on, the next `kactor up` finds them\n  kactor down --purge     pods, networks, rules, mounts, data and kubeconfig entries go"
    )]
    Down(DownArgs),
    /// What runs here, and what is wrong, in a sentence.
    #[command(
        after_help = "Examples:\n  kactor status\n  kactor status --wait --timeout 60 && kubectl get nodes\n  kactor status -o json"
    )]
    Status(StatusArgs),
    /// Print the administrator's kubeconfig, or merge it into a file.
    #[command(
        after_help = "Examples:\n  kactor kubeconfig > admin.yaml\n  kactor kubeconfig --merge ~/.kube/config"
    )]
    Kubeconfig(KubeconfigArgs),
    /// Check this machine: kernel, cgroups, disk, ports, networks, clock. Exit code 1 if something fails.
    #[command(
        after_help = "Examples:\n  kactor doctor\n  kactor doctor --data-dir /mnt/fast/kactor -o json"
    )]
    Doctor(DoctorArgs),
    /// Look inside the running kactor, interactively.
    #[command(after_help = "Examples:\n  kactor repl\n  echo top | kactor repl")]
    Repl(ConnectArgs),
    #[command(flatten)]
    Look(Look),
    /// Images of the node: import a tarball, list, remove.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Save the whole cluster to a file, and restore it on a blank host.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Print versions.
    #[command(after_help = "Example: kactor version -o json")]
    Version(OutputArgs),
    /// Print a completion script for a shell.
    #[command(
        after_help = "Examples:\n  kactor completion bash > /etc/bash_completion.d/kactor\n  kactor completion zsh  > \"${fpath[1]}/_kactor\"\n  kactor completion fish > ~/.config/fish/completions/kactor.fish"
    )]
    Completion { shell: clap_complete::Shell },
    /// In the demo's pods: answers with the pod's name.
    #[command(hide = true)]
    DemoServer(DemoServerArgs),
    /// In the demo's pods: asks a server, as curl would.
    #[command(hide = true)]
    DemoClient(DemoClientArgs),
}

/// The REPL's verbs, each a command by itself.
#[derive(Debug, Clone, Subcommand)]
pub enum Look {
    /// List actors.
    #[command(after_help = "Example: kactor actors pod/ -o json")]
    Actors {
        /// Only names that begin so.
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        connect: LookArgs,
    },
    /// One actor: vital signs and state.
    #[command(after_help = "Example: kactor inspect controller/replicaset")]
    Inspect {
        actor: String,
        #[command(flatten)]
        connect: LookArgs,
    },
    /// What waits in an actor's mailbox.
    #[command(after_help = "Example: kactor mailbox scheduler")]
    Mailbox {
        actor: String,
        #[command(flatten)]
        connect: LookArgs,
    },
    /// Follow what an actor takes, up to a limit.
    #[command(after_help = "Example: kactor tap scheduler --max 20")]
    Tap {
        actor: String,
        /// Ends after this many messages.
        #[arg(long)]
        max: u32,
        #[command(flatten)]
        connect: LookArgs,
    },
    /// All that is known of a trace, or of all traces that touched an object.
    #[command(
        after_help = "Examples:\n  kactor trace pod/default/web-0\n  kactor trace 00c0ffee00c0ffee"
    )]
    Trace {
        what: String,
        #[command(flatten)]
        connect: LookArgs,
    },
    /// Why an object is as it is: the decisions, waits and refusals that actors recorded.
    #[command(
        after_help = "Examples:\n  kactor why pod/default/web-0\n  kactor why deployment/web   (namespace default)"
    )]
    Why {
        object: String,
        #[command(flatten)]
        connect: LookArgs,
    },
    /// Messages that could not be delivered.
    #[command(after_help = "Example: kactor dead -o json")]
    Dead {
        #[command(flatten)]
        connect: LookArgs,
    },
    /// The store's replica: leader, log, journal, checkpoint, sizes.
    #[command(after_help = "Example: kactor raft -o json")]
    Raft {
        #[command(flatten)]
        connect: LookArgs,
    },
    /// The links to other hosts: round trips, what was carried, the last error.
    #[command(after_help = "Examples:\n  kactor links\n  kactor links --host n2 -o json")]
    Links {
        #[command(flatten)]
        connect: LookArgs,
    },
    /// Until when this host's certificate and those of its peers are good.
    #[command(after_help = "Example: kactor certs")]
    Certs {
        #[command(flatten)]
        connect: LookArgs,
    },
    /// The busiest actors.
    #[command(after_help = "Example: kactor top --by wait")]
    Top {
        #[arg(long, value_enum, default_value = "busy")]
        by: By,
        #[command(flatten)]
        connect: LookArgs,
    },
}

/// Which host is looked into.
#[derive(Debug, Clone, Args)]
pub struct LookArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Look into that host; `*` for all. An actor may also be named as ACTOR@HOST
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
}

impl Look {
    pub fn connect(&self) -> &ConnectArgs {
        &self.args().connect
    }

    /// The host that was asked for, if one was.
    pub fn host(&self) -> Option<&str> {
        self.args().host.as_deref()
    }

    fn args(&self) -> &LookArgs {
        match self {
            Look::Actors { connect, .. }
            | Look::Inspect { connect, .. }
            | Look::Mailbox { connect, .. }
            | Look::Tap { connect, .. }
            | Look::Trace { connect, .. }
            | Look::Why { connect, .. }
            | Look::Dead { connect }
            | Look::Raft { connect }
            | Look::Links { connect }
            | Look::Certs { connect }
            | Look::Top { connect, .. } => connect,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum By {
    Busy,
    Handled,
    Mailbox,
    Wait,
    Restarts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Real containers, without a daemon. Needs root.
    Embedded,
    /// Containers of the Docker Engine of this machine (DOCKER_HOST, else /var/run/docker.sock). Needs root.
    Docker,
    /// Pods that pretend to run: for tests, demos, scale. Needs no root.
    Hollow,
    /// A control plane without a node. Needs no root.
    None,
}

#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Where state, keys and pods live. Default: /var/lib/kactor as root, else ~/.local/share/kactor.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Join the cluster of this control host, instead of beginning one. `kactor token create` prints the whole line.
    #[arg(long, value_name = "HOST:PORT")]
    pub join: Option<String>,
    /// With --join: what lets this host in.
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Where the Kubernetes API is served (TCP), and where other hosts come in (UDP). Default: 0.0.0.0:6443.
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where the kubelet's API (metrics, stats, logs) is served. Default: --listen's address, port 10250 or, where that
    /// is taken, a free one that is kept for the next start.
    #[arg(long, value_name = "IP:PORT")]
    pub kubelet_listen: Option<SocketAddr>,
    /// The Node's name. Default: the host's name.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// What runs pods. Default: embedded.
    #[arg(long, value_enum)]
    pub runtime: Option<Runtime>,
    /// With --runtime hollow: so many nodes, NAME, NAME-2 and so on. For scale tests and demos.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=250))]
    pub hollow_nodes: u32,
    /// Write the kubeconfig only there, instead of merging it into $KUBECONFIG or ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Addresses of pods.
    #[arg(long, value_name = "CIDR", default_value = Self::POD_CIDR)]
    pub pod_cidr: String,
    /// Addresses of services.
    #[arg(long, value_name = "CIDR", default_value = Self::SERVICE_CIDR)]
    pub service_cidr: String,
    /// Also run three small pods and a service before them (cli/examples/hello.yaml), from an image made of kactor itself.
    #[arg(long)]
    pub demo: bool,
}

impl UpArgs {
    pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 6443);
    pub const POD_CIDR: &str = "10.244.0.0/16";
    pub const SERVICE_CIDR: &str = "10.96.0.0/16";
}

#[derive(Debug, Clone, Args)]
pub struct DemoServerArgs {
    #[arg(long, default_value = "8080")]
    pub port: u16,
}

#[derive(Debug, Clone, Args)]
pub struct DemoClientArgs {
    /// http://host[:port][/path]
    pub url: String,
    /// Ask so often, each time on a new connection.
    #[arg(long, value_name = "N", default_value = "1")]
    pub times: u32,
}

#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    /// The data directory of the kactor to stop.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Also remove pods, networks, rules, mounts and data, to the last.
    #[arg(long)]
    pub purge: bool,
}

#[derive(Debug, Clone, Args)]
pub struct LeaveArgs {
    /// Which host. Default: the one whose kactor is asked.
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Ask the kactor of this data directory.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How long pods may take to end, and the others to go on without it.
    #[arg(long, value_name = "SECONDS", default_value = "300")]
    pub timeout: u64,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}

/// Which running kactor to speak to.
#[derive(Debug, Clone, Args)]
pub struct ConnectArgs {
    /// Speak to the kactor of this data directory.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Block until the cluster serves.
    #[arg(long)]
    pub wait: bool,
    /// With --wait: give up after this many seconds, with exit code 1.
    #[arg(long, value_name = "SECONDS", default_value = "120")]
    pub timeout: u64,
}

/// What a token lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// Control hosts until there are three, then workers.
    Any,
    /// Control hosts: they hold every secret of the cluster.
    Control,
    /// Workers: they hold what their pods need.
    Worker,
}

#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Make a token, and print the line for the next host.
    #[command(
        after_help = "Examples:\n  kactor token create                            for the next hosts, within the hour\n  kactor token create --role worker --ttl 7d\n  kactor token create --uses 1 -o json"
    )]
    Create {
        #[arg(long, value_enum, default_value = "any")]
        role: TokenRole,
        /// How long it is valid: 90s, 30m, 12h, 7d at most.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = crate::token::span)]
        ttl: std::time::Duration,
        /// How many hosts it lets in.
        #[arg(long, value_name = "N", default_value = "100")]
        uses: u32,
        #[command(flatten)]
        connect: ConnectArgs,
    },
    /// List tokens and whom they let in. Secrets are not kept, so none are shown.
    #[command(alias = "ls", after_help = "Example: kactor token list -o json")]
    List {
        #[command(flatten)]
        connect: ConnectArgs,
    },
    /// Make a token worthless from now on.
    #[command(after_help = "Example: kactor token revoke 0a1b2c3d")]
    Revoke {
        /// Its first part, as `kactor token list` shows it.
        id: String,
        #[command(flatten)]
        connect: ConnectArgs,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum ImageCommand {
    /// Take the images of a `docker save` or OCI layout tarball.
    #[command(
        after_help = "Example: docker save busybox -o busybox.tar && kactor image import busybox.tar"
    )]
    Import {
        #[arg(value_name = "TARBALL")]
        file: PathBuf,
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
    /// List what is here.
    #[command(alias = "ls", after_help = "Example: kactor image list -o json")]
    List {
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Remove an image's name, and its content with the last name.
    #[command(after_help = "Example: kactor image rm busybox:latest")]
    Rm {
        reference: String,
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum SnapshotCommand {
    /// Write all objects and the cluster's keys to a file, of a running or a stopped kactor.
    #[command(
        after_help = "The file holds the cluster's private keys: whoever reads it owns the cluster. It is written with mode\n0600; encrypt it before it leaves the host (age, gpg).\n\nExample: kactor snapshot save /backup/kactor-$(date +%F).snapshot"
    )]
    Save(SnapshotSaveArgs),
    /// Make a stopped, empty data directory hold the saved cluster, as a new epoch.
    #[command(
        after_help = "Revisions jump by a billion, so that every client lists anew. Kubeconfigs and tokens go on working.\n\nExample: kactor snapshot restore /backup/kactor.snapshot --data-dir /var/lib/kactor"
    )]
    Restore(SnapshotRestoreArgs),
    /// Check a file to its last byte and say what is in it.
    #[command(after_help = "Example: kactor snapshot inspect /backup/kactor.snapshot")]
    Inspect {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
}

#[derive(Debug, Clone, Args)]
pub struct SnapshotSaveArgs {
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Whose cluster is saved.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Replace FILE if it exists.
    #[arg(long)]
    pub force: bool,
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Clone, Args)]
pub struct SnapshotRestoreArgs {
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where the cluster shall live.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A cluster that is there already is moved aside within the directory; nothing is deleted.
    #[arg(long)]
    pub force: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Debug, Clone, Args)]
pub struct KubeconfigArgs {
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Merge into this file instead of printing.
    #[arg(long, value_name = "FILE")]
    pub merge: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// The disk of this directory is measured.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Clone, Args)]
pub struct OutputArgs {
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_command_says_what_it_does_with_an_example() {
        fn check(command: &clap::Command) {
            for it in command.get_subcommands().filter(|it| !it.is_hide_set()) {
                let name = it.get_name();
                assert!(it.get_about().is_some(), "{name} has no words");
                match it.has_subcommands() {
                    true => check(it),
                    false => {
                        let after = it.get_after_help().map(ToString::to_string);
                        let shown = format!("kactor {}", name);
                        let after = after.unwrap_or_default();
                        let after = after.replace(" image ", " ").replace(" snapshot ", " ");
                        let after = after.replace(" token ", " ");
                        assert!(
                            after.contains(&shown),
                            "{name} has no example of itself: {after:?}"
                        );
                    }
                }
            }
        }
        check(&Cli::command());
    }

    #[test]
    fn verbs_of_the_repl_are_commands() {
        let cli = Cli::try_parse_from(["kactor", "why", "pod/web", "-o", "json"]).unwrap();
        let Command::Look(look @ Look::Why { .. }) = cli.command else { panic!("not why") };
        assert_eq!(look.connect().output, Output::Json);
        assert!(Cli::try_parse_from(["kactor", "tap", "store"]).is_err(), "a tap needs a limit");
    }
}
