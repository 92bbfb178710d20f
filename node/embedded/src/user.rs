//! Who a container runs as: the image's user and the Pod's security context, looked up in the image's own passwd.
//!
//! `user[:group]` by number or name, as Docker reads it. The files belong to the image, so they are read as a
//! stranger's: bounded, and never through a link that leaves the root.

use std::path::Path;

use kactor_drivers::{DriverError, Security};
use kactor_images::rooted::Rooted;

const PASSWD_BYTES_MAX: u64 = 1 << 20;

/// The numbers that the kernel is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Sorted, without `gid`.
    pub groups: Vec<u32>,
    pub home: String,
}

/// Reads the root's passwd and group and decides.
pub fn identity(root: &Path, image_user: &str, wanted: &Security) -> Result<Identity, DriverError> {
    let rooted = Rooted::open(root)
        .map_err(|it| DriverError::io(format!("opening {}", root.display()), it))?;
    let read = |path: &str| {
        let bytes = rooted.read(Path::new(path), PASSWD_BYTES_MAX);
        let bytes =
            bytes.map_err(|it| DriverError::io(format!("reading the image's /{path}"), it))?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    decide(&read("etc/passwd")?, &read("etc/group")?, image_user, wanted)
}

fn decide(
    passwd: &str,
    group: &str,
    image_user: &str,
    wanted: &Security,
) -> Result<Identity, DriverError> {
    let (user, image_group) = match image_user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (image_user, None),
    };
    let from_image = match wanted.run_as_user {
        Some(uid) => find_user(passwd, &uid.to_string()).unwrap_or(Entry::of(uid)),
        None if user.is_empty() => find_user(passwd, "0").unwrap_or(Entry::of(0)),
        None => find_user(passwd, user).or_else(|| user.parse().ok().map(Entry::of)).ok_or_else(
            || DriverError::Invalid {
                field: "image.config.User",
                why: format!("the image's /etc/passwd knows no user {user:?}"),
            },
        )?,
    };
    let named_group = match image_group {
        Some(name) if wanted.run_as_user.is_none() && !name.is_empty() => {
            Some(find_group(group, name).ok_or_else(|| DriverError::Invalid {
                field: "image.config.User",
                why: format!("the image's /etc/group knows no group {name:?}"),
            })?)
        }
        _ => None,
    };
    let gid = wanted.run_as_group.or(named_group).unwrap_or(from_image.gid);
    if wanted.run_as_non_root && from_image.uid == 0 {
        let why = "container has runAsNonRoot and image will run as root".to_owned();
        return Err(DriverError::Invalid { field: "securityContext.runAsNonRoot", why });
    }
    let mut groups = wanted.supplemental_groups.clone();
    groups.extend(memberships(group, &from_image.name));
    groups.sort_unstable();
    groups.dedup();
    groups.retain(|it| *it != gid);
    Ok(Identity { uid: from_image.uid, gid, groups, home: from_image.home })
}

struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl Entry {
    fn of(uid: u32) -> Self {
        Self { name: String::new(), uid, gid: 0, home: "/".to_owned() }
    }
}

/// By name, else by number.
fn find_user(passwd: &str, user: &str) -> Option<Entry> {
    let entries = || passwd.lines().filter_map(parse_user);
    let by_number = || user.parse::<u32>().ok().and_then(|uid| entries().find(|it| it.uid == uid));
    entries().find(|it| it.name == user).or_else(by_number)
}

fn parse_user(line: &str) -> Option<Entry> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields.as_slice() else {
        return None;
    };
    Some(Entry {
        name: (*name).to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: if home.is_empty() { "/".to_owned() } else { (*home).to_owned() },
    })
}

fn find_group(group: &str, name: &str) -> Option<u32> {
    let by_name = group.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&name)).then(|| fields.get(2)?.parse().ok()).flatten()
    });
    by_name.or_else(|| name.parse().ok())
}

fn memberships<'a>(group: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter(|_| !user.is_empty()).filter_map(move |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_member = fields.get(3)?.split(',').any(|it| it == user);
        is_member.then(|| fields[2].parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:100:101::/srv:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:101:\nlogs:x:200:web,other\n";

    #[track_caller]
    fn check(image_user: &str, wanted: &Security, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let found = decide(PASSWD, GROUP, image_user, wanted).unwrap();
        assert_eq!((found.uid, found.gid, found.groups.as_slice()), (uid, gid, groups));
        assert_eq!(found.home, home);
    }

    #[test]
    fn the_pods_numbers_win_over_the_images_names() {
        let plain = Security::default();
        check("", &plain, 0, 0, &[], "/root");
        check("web", &plain, 100, 101, &[200], "/srv");
        check("100", &plain, 100, 101, &[200], "/srv");
        check("web:logs", &plain, 100, 200, &[], "/srv");
        check("5000", &plain, 5000, 0, &[], "/");
        check("5000:6000", &plain, 5000, 6000, &[], "/");
        let own = Security {
            run_as_user: Some(1000),
            run_as_group: Some(3000),
            supplemental_groups: vec![4000, 3000],
            ..Security::default()
        };
        check("web:logs", &own, 1000, 3000, &[4000], "/");
    }

    #[test]
    fn unknown_names_and_root_under_run_as_non_root_are_refused() {
        let plain = Security::default();
        assert!(decide(PASSWD, GROUP, "nobody-here", &plain).is_err());
        assert!(decide(PASSWD, GROUP, "web:nogroup", &plain).is_err());
        let careful = Security { run_as_non_root: true, ..Security::default() };
        assert!(decide(PASSWD, GROUP, "", &careful).is_err());
        assert!(decide(PASSWD, GROUP, "web", &careful).is_ok());
    }
}
