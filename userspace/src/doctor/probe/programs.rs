//! BPF in this kernel: what it knows, and whether egret's own programs load and fire.

use std::error::Error as _;
use std::io;
use std::path::Path;

use agent_ebpf::abi::Hook;
use aya::maps::MapType;
use aya::programs::{LsmAttachType, ProgramType};
use aya::sys::{is_map_supported, is_program_supported};

use super::super::facts::{Loaded, NotSeen, Programs, Seen};
use super::super::parse;
use super::cgroups::Bench;
use super::is_refused;
use crate::redirect::ebpf::{Kernel, KernelError, KernelOptions};
use crate::redirect::netns;
use crate::redirect::self_test::{self, SelfTest};
use crate::sys::bpf_query;

/// What the later probes build on.
const BPF: NotSeen = NotSeen::Without("bpf(2)");
const LOADED: NotSeen = NotSeen::Without("egret's programs");
const GROUP: NotSeen = NotSeen::Without("a cgroup to try them in");

pub(super) fn probe(bench: Option<&Bench>, root: bool) -> Programs {
    let unix_connect = bpf_query::has_unix_connect();
    let syscall = syscall(&unix_connect, root);
    let usable = match &syscall {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(BPF),
        Err(why) => Err(why.clone()),
    };
    let kernel = usable.clone().map(|()| Kernel::load(&KernelOptions::default()));
    let (loaded, kernel) = match kernel {
        Ok(Ok(kernel)) => (Ok(Loaded::All(Hook::ALL.len())), Ok(kernel)),
        Ok(Err(error)) => (Ok(refused(&error)), Err(LOADED)),
        Err(why) => (Err(why.clone()), Err(why)),
    };
    let ready = match (&kernel, bench) {
        (Err(why), _) => Err(why.clone()),
        (Ok(_), None) => Err(GROUP),
        (Ok(kernel), Some(bench)) => Ok((kernel, bench)),
    };
    Programs {
        ring_buffer: usable.clone().and_then(|()| knows(MapType::RingBuf)),
        socket_storage: usable.clone().and_then(|()| knows(MapType::SkStorage)),
        btf: usable.clone().map(|()| aya::features().btf().is_some()),
        kernel_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        netns_cookie: Ok(netns::own_cookie().map(drop).map_err(|e| e.to_string())),
        loaded,
        proven: ready.clone().map(|(kernel, bench)| prove(kernel, bench)),
        link_update: ready.map(|(kernel, bench)| update(kernel, bench)),
        lsm_cgroup: usable.clone().map(|()| lsm_cgroup()),
        unix_connect: usable.and_then(|()| unix_connect.map_err(|e| NotSeen::Error(e.to_string()))),
        syscall,
    }
}

/// Whether the verifier takes the least that is a program for a hook on cgroups.
fn syscall(least: &io::Result<bool>, root: bool) -> Seen<Result<(), String>> {
    match least {
        Ok(_) => Ok(Ok(())),
        Err(e) if is_refused(e) && !root => Err(NotSeen::NeedsRoot),
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
            Ok(Err("the kernel has none".to_owned()))
        }
        Err(e) => Ok(Err(e.to_string())),
    }
}

fn knows(kind: MapType) -> Seen<bool> {
    is_map_supported(kind).map_err(|e| NotSeen::Error(e.to_string()))
}

/// Tries to load one. That the list of security modules names `bpf` is not enough.
fn lsm_cgroup() -> Result<(), String> {
    match is_program_supported(ProgramType::Lsm(LsmAttachType::Cgroup)) {
        Ok(true) => Ok(()),
        Ok(false) => Err("the kernel has none (Linux 6.0)".to_owned()),
        Err(e) => Err(match e.source() {
            Some(cause) => format!("{e}: {cause}"),
            None => e.to_string(),
        }),
    }
}

fn refused(error: &KernelError) -> Loaded {
    match error {
        KernelError::NotPermitted(_) => Loaded::NotPermitted(error.to_string()),
        KernelError::Program { program, source, log } => Loaded::Refused {
            program,
            // The whole log can be a megabyte.
            why: match parse::complaint(log) {
                Some(complaint) => format!("{source}; {complaint}"),
                None => source.to_string(),
            },
        },
        KernelError::Load(_)
        | KernelError::Missing(_)
        | KernelError::Attach { .. }
        | KernelError::Replace { .. }
        | KernelError::HoldsEgret(_)
        | KernelError::Pins(_)
        | KernelError::Cgroup(_)
        | KernelError::Clock(_)
        | KernelError::Map { .. } => Loaded::Failed(error.to_string()),
    }
}

fn prove(kernel: &Kernel, bench: &Bench) -> Result<(usize, bool), String> {
    let SelfTest { hooks, ipv6, .. } =
        self_test::run(kernel, &bench.hierarchy).map_err(|e| e.to_string())?;
    Ok((hooks.len(), ipv6))
}

/// Attaches the programs, then puts them in their own place.
fn update(kernel: &Kernel, bench: &Bench) -> Result<(), String> {
    let attachment = kernel.attach(&bench.cgroup).map_err(|e| e.to_string())?;
    kernel.replace(&attachment).map_err(|e| e.to_string())
}
