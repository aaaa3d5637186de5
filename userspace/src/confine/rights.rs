//! Users, groups and capabilities: from root to somebody who can never be root again.

use nix::errno::Errno;
use nix::sys::prctl::{get_no_new_privs, set_dumpable, set_no_new_privs, set_pdeathsig};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid};

use super::{ConfineError, Confinement, Identity, step};
use crate::sys::caps;

/// Gives everything up, checks that it is gone, and answers who this is now.
pub(super) fn give_up(c: &Confinement) -> Result<Identity, ConfineError> {
    let user = c.user;
    // While there are capabilities to do it with.
    caps::empty_bounding_set().map_err(step("empty the bounding set"))?;
    caps::lock_secure_bits().map_err(step("lock the secure bits"))?;
    setgroups(&[]).map_err(step("drop the supplementary groups"))?;
    if let Some(Identity { uid, gid }) = user {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        setresgid(gid, gid, gid).map_err(step(format!("become group {gid}")))?;
        setresuid(uid, uid, uid).map_err(step(format!("become user {uid}")))?;
    }
    // With those bits a change of user takes nothing away, so this does, for every user.
    caps::limit_to(0).map_err(step("drop the capabilities"))?;
    set_no_new_privs().map_err(step("set no_new_privs"))?;
    // After the change of user, which resets it.
    set_dumpable(false).map_err(step("close this process to others"))?;
    if c.dies_with_parent {
        set_pdeathsig(Signal::SIGKILL).map_err(step("die with the parent"))?;
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(step("forbid core files"))?;
    check(user)
}

fn check(user: Option<Identity>) -> Result<Identity, ConfineError> {
    if caps::any_left().map_err(step("read the capabilities"))? {
        return Err(ConfineError::Left("a capability"));
    }
    if !get_no_new_privs().map_err(step("read no_new_privs"))? {
        return Err(ConfineError::Left("a way to gain privileges"));
    }
    let is = getresuid().map_err(step("read the user"))?;
    let group = getresgid().map_err(step("read the group"))?;
    let now = Identity { uid: is.real.as_raw(), gid: group.real.as_raw() };
    if [is.effective, is.saved].iter().any(|u| u.as_raw() != now.uid)
        || [group.effective, group.saved].iter().any(|g| g.as_raw() != now.gid)
        || user.is_some_and(|wanted| wanted != now)
    {
        return Err(ConfineError::Left("another user or group"));
    }
    let root = Uid::from_raw(0);
    if now.uid != 0 && setresuid(root, root, root) != Err(Errno::EPERM) {
        return Err(ConfineError::Left("the way back to root"));
    }
    Ok(now)
}
