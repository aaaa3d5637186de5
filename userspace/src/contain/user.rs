//! Who the command runs as: `--user`, else the user who called sudo, else the current one.

use std::ffi::{CString, OsString};

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist, getgroups};
use serde::{Deserialize, Serialize};

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub name: Option<String>,
    pub home: OsString,
    pub shell: OsString,
    /// Whether this is another user than egret's own, so that HOME and its kin must change.
    pub changed: bool,
}

/// Why no user could be determined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("there is no user `{0}` on this machine")]
    NoSuchUser(String),
    #[error("there is no group `{0}` on this machine")]
    NoSuchGroup(String),
    #[error("`{0}` is not a user: expected NAME, UID, NAME:GROUP or UID:GID")]
    Malformed(String),
    #[error("cannot read the user database: {0}")]
    Database(nix::Error),
}

impl Target {
    /// Root without supplementary groups.
    pub fn root() -> Self {
        Self {
            uid: 0,
            gid: 0,
            groups: vec![],
            name: Some("root".into()),
            home: "/root".into(),
            shell: "/bin/sh".into(),
            changed: false,
        }
    }

    /// HOME, USER, LOGNAME and SHELL, when they must change.
    pub fn variables(&self) -> Vec<(OsString, OsString)> {
        if !self.changed {
            return vec![];
        }
        let name = self.name.clone().unwrap_or_else(|| self.uid.to_string());
        vec![
            ("HOME".into(), self.home.clone()),
            ("USER".into(), name.clone().into()),
            ("LOGNAME".into(), name.into()),
            ("SHELL".into(), self.shell.clone()),
        ]
    }
}

/// Resolves the user: `flag` as given to `--user`; else SUDO_UID and SUDO_GID, which count only
/// when egret itself is root; else whoever egret runs as.
///
/// # Errors
/// A user or group that is malformed or does not exist.
pub fn resolve(
    flag: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Target, UserError> {
    if let Some(flag) = flag {
        let (user, group) = match flag.split_once(':') {
            Some((u, g)) => (u, Some(g)),
            None => (flag, None),
        };
        return lookup(user, group, flag);
    }
    if geteuid().is_root()
        && let (Some(uid), Some(gid)) = (variable("SUDO_UID"), variable("SUDO_GID"))
    {
        return lookup(&uid, Some(&gid), &format!("{uid}:{gid} (from sudo)"));
    }
    current()
}

fn lookup(user: &str, group: Option<&str>, whole: &str) -> Result<Target, UserError> {
    if user.is_empty() || group == Some("") {
        return Err(UserError::Malformed(whole.into()));
    }
    let (uid, known) = match user.parse::<u32>() {
        Ok(n) => (n, User::from_uid(Uid::from_raw(n)).map_err(UserError::Database)?),
        Err(_) => {
            let found = User::from_name(user).map_err(UserError::Database)?;
            let found = found.ok_or_else(|| UserError::NoSuchUser(user.into()))?;
            (found.uid.as_raw(), Some(found))
        }
    };
    let gid = match (group, &known) {
        (Some(g), _) => group_id(g)?,
        (None, Some(u)) => u.gid.as_raw(),
        (None, None) => uid,
    };
    // (uid_t)-1 means "leave it as it is" to setresuid and setresgid.
    if uid == u32::MAX || gid == u32::MAX {
        return Err(UserError::Malformed(whole.into()));
    }
    Ok(described(uid, gid, known, uid != geteuid().as_raw()))
}

fn group_id(text: &str) -> Result<u32, UserError> {
    if let Ok(n) = text.parse() {
        return Ok(n);
    }
    let found = Group::from_name(text).map_err(UserError::Database)?;
    Ok(found.ok_or_else(|| UserError::NoSuchGroup(text.into()))?.gid.as_raw())
}

fn described(uid: u32, gid: u32, known: Option<User>, changed: bool) -> Target {
    let groups = known
        .as_ref()
        .and_then(|u| CString::new(u.name.as_str()).ok())
        .and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok())
        .unwrap_or_else(|| vec![Gid::from_raw(gid)]);
    Target {
        uid,
        gid,
        groups: groups.into_iter().map(Gid::as_raw).collect(),
        home: known.as_ref().map_or_else(|| "/".into(), |u| u.dir.clone().into_os_string()),
        shell: known
            .as_ref()
            .map_or_else(|| "/bin/sh".into(), |u| u.shell.clone().into_os_string()),
        name: known.map(|u| u.name),
        changed,
    }
}

fn current() -> Result<Target, UserError> {
    let (uid, gid) = (geteuid(), getegid());
    let known = User::from_uid(uid).map_err(UserError::Database)?;
    let mut target = described(uid.as_raw(), gid.as_raw(), known, false);
    let groups = getgroups().map_err(UserError::Database)?;
    target.groups = groups.into_iter().map(Gid::as_raw).collect();
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_flag_names_a_user_by_name_or_number() {
        let root = resolve(Some("root"), none).unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        let odd = resolve(Some("4242424:77"), none).unwrap();
        assert_eq!((odd.uid, odd.gid, odd.name.clone()), (4_242_424, 77, None));
        assert_eq!(odd.groups, [77]);
        assert!(odd.variables().iter().any(|(n, v)| n == "USER" && v == "4242424"));
        assert_eq!(resolve(Some("5555555"), none).unwrap().gid, 5_555_555);
    }

    #[test]
    fn what_names_nobody_is_refused() {
        for bad in ["", ":", "root:", ":0", "4294967295", "0:4294967295"] {
            assert!(matches!(resolve(Some(bad), none), Err(UserError::Malformed(_))), "{bad}");
        }
        assert!(matches!(resolve(Some("no-such-user-x"), none), Err(UserError::NoSuchUser(_))));
        assert!(matches!(resolve(Some("root:no-such-x"), none), Err(UserError::NoSuchGroup(_))));
    }

    #[test]
    fn sudo_counts_only_for_root_and_only_when_complete() {
        let both = |n: &str| (n.starts_with("SUDO_")).then(|| "1000".to_owned());
        let uid = resolve(None, both).unwrap().uid;
        assert_eq!(uid, if geteuid().is_root() { 1000 } else { geteuid().as_raw() });
        let half = |n: &str| (n == "SUDO_UID").then(|| "1000".to_owned());
        assert_eq!(resolve(None, half).unwrap().uid, geteuid().as_raw());
        let bad = |n: &str| n.starts_with("SUDO_").then(|| "x y".to_owned());
        assert_eq!(resolve(None, bad).is_err(), geteuid().is_root());
    }
}
