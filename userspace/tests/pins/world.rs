//! What the tests of pins and of running groups share: a bpffs of their own, and an agent that is
//! served.

#[path = "../common/wire.rs"]
mod wire;

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use agent_ebpf::address::Port;
use egret::identify::{NetnsCookie, SessionId};
use egret::redirect::bpffs::Bpffs;
use egret::redirect::cgroup::{Cgroup, Hierarchy};
use egret::redirect::ebpf::{AgentFlags, Kernel, KernelOptions, ListenerPorts};
use egret::redirect::listener::Listeners;
use egret::sys::socket::netns_cookie;

pub(crate) use wire::{accept, as_root, run, start, tries, wire};

/// Longer than a test takes on a busy machine; those about its end end it.
const PATIENT: Duration = Duration::from_secs(60);

/// Options with a private bpffs below `folder`.
pub(crate) fn pinned(folder: &Path) -> KernelOptions {
    let bpffs = Bpffs::open_or_mount(&folder.join("bpf")).unwrap();
    let pin_dir = Some(bpffs.path().into());
    KernelOptions { pin_dir, lease: PATIENT, ..KernelOptions::default() }
}

pub(crate) fn group() -> Cgroup {
    Hierarchy::find().unwrap().create(&SessionId::random()).unwrap()
}

/// Opens listeners here and tells the kernel of them and of the agent.
pub(crate) fn serve(kernel: &Kernel, cgroup: &Cgroup) -> Listeners {
    let listeners = Listeners::open_here().unwrap();
    let ports = listeners.ports();
    let (tcp, dns) = (Port::new(ports.intercept), Port::new(ports.dns));
    let entry = ListenerPorts {
        tcp4: tcp,
        tcp6: tcp,
        dns_udp4: dns,
        dns_udp6: dns,
        dns_tcp4: dns,
        dns_tcp6: dns,
        pad: [0; 4],
    };
    let cookie = NetnsCookie(netns_cookie(listeners.intercept_v4.as_fd()).unwrap());
    kernel.set_listeners(cookie, cgroup.id(), entry).unwrap();
    let flags = AgentFlags::ACTIVE.with(AgentFlags::PRIVATE_NETNS);
    kernel.set_agent(cgroup.id(), flags).unwrap();
    kernel.feed().beat().unwrap();
    listeners
}

/// Removes all pins of an agent but the first `keep` in the order in which they are made: what a
/// daemon leaves that dies between two pins.
pub(crate) fn keep_pins(folder: &Path, keep: usize) {
    use agent_ebpf::abi::Hook;
    let rest = Hook::ALL.iter().filter(|h| **h != Hook::Egress);
    for hook in std::iter::once(&Hook::Egress).chain(rest).skip(keep) {
        fs::remove_file(folder.join(hook.name())).unwrap();
    }
}
