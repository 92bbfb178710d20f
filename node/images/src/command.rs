//! What a container runs: the image's entrypoint and cmd under the container's command and args.
//!
//! Kubernetes docs, "Define a Command and Arguments for a Container": command replaces entrypoint and drops the
//! image's cmd; args alone replace cmd.

use kactor_drivers::ImageConfig;

/// Program and arguments; empty when neither image nor container names a program.
pub fn command_line(image: &ImageConfig, command: &[String], args: &[String]) -> Vec<String> {
    let (program, rest) = match (command.is_empty(), args.is_empty()) {
        (false, _) => (command, args),
        (true, false) => (image.entrypoint.as_slice(), args),
        (true, true) => (image.entrypoint.as_slice(), image.cmd.as_slice()),
    };
    program.iter().chain(rest).cloned().collect()
}

/// `NAME=value` lines: the image's, then the container's; later names win, the first place is kept. A PATH is
/// always there.
pub fn environment(image: &ImageConfig, container: &[(String, String)]) -> Vec<String> {
    const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let own = container.iter().map(|(name, value)| format!("{name}={value}"));
    let mut lines: Vec<String> = Vec::new();
    for line in std::iter::once(PATH.to_owned()).chain(image.env.iter().cloned()).chain(own) {
        let name = name_of(&line);
        match lines.iter_mut().find(|it| name_of(it) == name) {
            Some(slot) => *slot = line,
            None => lines.push(line),
        }
    }
    lines
}

fn name_of(line: &str) -> &str {
    line.split('=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn command_and_args_override_the_image_as_kubernetes_documents() {
        // image entrypoint, cmd, container command, args, what runs
        let cases = [
            ("/ep-1", "foo bar", "", "", "/ep-1 foo bar"),
            ("/ep-1", "foo bar", "/ep-2", "", "/ep-2"),
            ("/ep-1", "foo bar", "", "zoo boo", "/ep-1 zoo boo"),
            ("/ep-1", "foo bar", "/ep-2", "zoo boo", "/ep-2 zoo boo"),
            ("", "sh", "", "", "sh"),
            ("", "", "", "", ""),
        ];
        for (entrypoint, cmd, command, args, wanted) in cases {
            let image = ImageConfig {
                entrypoint: list(entrypoint),
                cmd: list(cmd),
                ..ImageConfig::default()
            };
            assert_eq!(command_line(&image, &list(command), &list(args)), list(wanted));
        }
    }

    #[test]
    fn the_container_wins_over_the_image_and_path_is_always_set() {
        let image = ImageConfig { env: list("A=1 B=2"), ..ImageConfig::default() };
        let own = [("B".to_owned(), "x=y".to_owned()), ("C".to_owned(), String::new())];
        let lines = environment(&image, &own);
        assert!(lines[0].starts_with("PATH=/usr/local/sbin"));
        assert_eq!(lines[1..], ["A=1", "B=x=y", "C="]);
        let path = ImageConfig { env: list("PATH=/only"), ..ImageConfig::default() };
        assert_eq!(environment(&path, &[]), ["PATH=/only"]);
    }
}
