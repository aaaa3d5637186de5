//! The hierarchy of cgroup v2, tried with a group that is made for the purpose.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use agent_ebpf::abi::Hook;
use aya::programs::loaded_programs;

use super::super::facts::{Cgroups, NotSeen, Other, Seen};
use super::super::parse;
use super::is_refused;
use crate::identify::SessionId;
use crate::redirect::cgroup::{Cgroup, CgroupError, Hierarchy};
use crate::redirect::ebpf::attach_type;
use crate::sys::bpf_query::{Attached, attached};

/// The folder that holds the sessions' groups.
const SESSIONS: &str = "egret";

/// What the probes of the programs work with. The group goes when this is dropped.
pub(super) struct Bench {
    pub(super) hierarchy: Hierarchy,
    pub(super) cgroup: Cgroup,
}

pub(super) fn probe(mountinfo: &Seen<String>, root: bool) -> (Cgroups, Option<Bench>) {
    let hierarchy = Hierarchy::find().ok();
    let at = hierarchy.as_ref().map(|h| h.root().to_owned());
    let layout = match mountinfo {
        Ok(text) => Ok(parse::cgroups(text, at.clone())),
        Err(why) => Err(why.clone()),
    };
    let (created, bench) = match hierarchy {
        None => (Err(NotSeen::Without("cgroup v2")), None),
        Some(hierarchy) => create(hierarchy, root),
    };
    let group = bench.as_ref().map(|b| b.cgroup.path().to_owned()).or_else(|| any_group(&at));
    let file = |name: &str| match &group {
        Some(group) => Ok(group.join(name).exists()),
        None => Err(NotSeen::Without("a group of cgroup v2")),
    };
    let try_out = |there: Seen<bool>, works: &dyn Fn(&Cgroup) -> Result<(), CgroupError>| {
        let tried = bench.as_ref().is_none_or(|b| works(&b.cgroup).is_ok());
        there.map(|there| there && tried)
    };
    let freeze = try_out(file("cgroup.freeze"), &|g| g.freeze().and_then(|()| g.thaw()));
    // The group is empty: nothing is killed.
    let kill = try_out(file("cgroup.kill"), &Cgroup::kill_all);
    let others = at.as_ref().map_or(Err(NotSeen::Without("cgroup v2")), |at| others(at, root));
    (Cgroups { layout, created, freeze, kill, others }, bench)
}

fn create(hierarchy: Hierarchy, root: bool) -> (Seen<Result<(), String>>, Option<Bench>) {
    if !root {
        return (Err(NotSeen::NeedsRoot), None);
    }
    match hierarchy.create(&SessionId::random()) {
        Ok(cgroup) => (Ok(Ok(())), Some(Bench { hierarchy, cgroup })),
        Err(error) => (Ok(Err(error.to_string())), None),
    }
}

/// Any group but the topmost, which has neither file.
fn any_group(root: &Option<PathBuf>) -> Option<PathBuf> {
    let entries = fs::read_dir(root.as_ref()?).ok()?;
    entries.flatten().map(|e| e.path()).find(|path| path.is_dir())
}

/// What a session's group would inherit: from the top, from the sessions' folder, and from groups
/// above the top of what is seen here.
fn others(root: &Path, is_root: bool) -> Seen<Vec<Other>> {
    let mut found = Vec::new();
    let mut known = Vec::new();
    for cgroup in [root.join(SESSIONS), root.to_owned()] {
        let Ok(dir) = File::open(&cgroup) else { continue };
        for hook in Hook::ALL {
            let own = query(&dir, *hook, false, is_root)?;
            if !own.programs.is_empty() {
                known.extend(own.programs.iter().map(|id| (hook.name(), *id)));
                found.push(other(*hook, Some(&cgroup), &own.programs, own.flags == 0));
            }
        }
    }
    let top = File::open(root).map_err(|e| super::not_seen(&e, root))?;
    for hook in Hook::ALL {
        let mut inherited = query(&top, *hook, true, is_root)?.programs;
        inherited.retain(|id| !known.contains(&(hook.name(), *id)));
        if !inherited.is_empty() {
            found.push(other(*hook, None, &inherited, false));
        }
    }
    Ok(found)
}

fn query(dir: &File, hook: Hook, effective: bool, is_root: bool) -> Seen<Attached> {
    match attached(dir.as_fd(), attach_type(hook), effective) {
        // A hook that the kernel lacks has no programs; that egret needs it is said elsewhere.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(Attached::default()),
        Err(e) if is_refused(&e) && !is_root => Err(NotSeen::NeedsRoot),
        Err(e) => Err(NotSeen::Error(format!("BPF_PROG_QUERY: {e}"))),
        Ok(attached) => Ok(attached),
    }
}

fn other(hook: Hook, cgroup: Option<&Path>, ids: &[u32], exclusive: bool) -> Other {
    let programs = ids.iter().map(|id| name(*id)).collect();
    Other { hook: hook.name(), cgroup: cgroup.map(Path::to_owned), programs, exclusive }
}

fn name(id: u32) -> String {
    let info = loaded_programs().flatten().find(|info| info.id() == id);
    let name = info.as_ref().and_then(|info| info.name_as_str()).unwrap_or("");
    if name.is_empty() { format!("program {id}") } else { format!("{name} ({id})") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::ebpf::{Kernel, KernelOptions};

    #[test]
    fn programs_of_a_group_and_of_the_groups_above_are_found() {
        if !nix::unistd::geteuid().is_root() {
            return; // nothing may be attached
        }
        let group = Hierarchy::find().unwrap().create(&SessionId::random()).unwrap();
        let below = group.path().join("below");
        fs::create_dir(&below).unwrap();
        let inherited = others(&below, true).unwrap();

        let kernel = Kernel::load(&KernelOptions::default()).unwrap();
        let attachment = kernel.attach(&group).unwrap();
        let here = others(group.path(), true).unwrap();
        let own: Vec<_> =
            here.iter().filter(|o| o.cgroup.as_deref() == Some(group.path())).collect();
        assert_eq!(own.len(), Hook::ALL.len(), "{here:?}");
        for (other, hook) in own.iter().zip(Hook::ALL) {
            assert_eq!((other.hook, other.exclusive), (hook.name(), false));
            assert!(other.programs[0].starts_with(hook.name()), "{other:?}");
        }
        let under = others(&below, true).unwrap();
        assert_eq!(under.len(), Hook::ALL.len(), "{under:?}");
        assert!(under.iter().all(|o| o.cgroup.is_none()), "{under:?}");

        drop(attachment);
        assert_eq!(others(&below, true).unwrap(), inherited, "as it was before");
    }
}
