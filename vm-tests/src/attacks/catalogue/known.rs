//! Pure: what is known to get through, word for word as "Not promised" of SECURITY.md says it.

use crate::attacks::kinds::Known::{self, Through};
use crate::attacks::kinds::Who;

pub(in crate::attacks) const ROOT: &[Who] = &[Who::Root];
pub(in crate::attacks) const USER: &[Who] = &[Who::User];
pub(in crate::attacks) const BOTH: &[Who] = &Who::ALL;

/// Of `egret run`.
pub(super) const OWNS: &str = "An agent of uid 0 has no capability, but it owns root's files";
pub(super) const PASSED_IN: &str = "A socket keeps the cgroup in which it was made. `run` closes every file descriptor but the standard three, and what it is given there is the operator's word: a socket, or a folder, passed as stdin stays usable.";
pub(super) const LATER: Known = Through(
    BOTH,
    "A socket that another program creates afterwards, in a folder that both see, is reachable: ssh with agent forwarding and editors do that in /tmp.",
);
pub(super) const URING: &str = "It makes sockets of families that no cgroup hook governs, AF_VSOCK among them, which in a virtual machine reaches its host.";

/// Of both.
pub(super) const ALIASES: Known = Through(
    BOTH,
    "A deny rule on a zone or an address range is not held against the aliases and addresses behind an allowed name; private and special addresses are refused, and for https the certificate must match the name.",
);

/// Of `egret attach`.
pub(super) const UNIX: Known = Through(
    BOTH,
    "The Unix sockets of the machine are reachable, abstract ones and those made later among them, unless the unit hides them: what listens there acts for whoever asks (D-Bus, systemd, docker, nscd, systemd-resolved), and may hand out sockets of its own.",
);
pub(super) const FAMILIES: &str = "Sockets of other families open: AF_VSOCK, AF_NETLINK, AF_ALG and the like, and with CAP_NET_RAW AF_PACKET and AF_XDP, which send past every hook; `RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6` refuses them.";
pub(super) const PROCESSES: &str = "Other processes of its user can be signalled, and where no Yama forbids it traced and robbed of their sockets; uid 0 with CAP_KILL can end egret, which closes it.";
pub(super) const BROUGHT: Known = Through(
    BOTH,
    "A process that is moved into an attached group keeps the sockets that it brings.",
);
pub(super) const READS: Known = Through(
    ROOT,
    "An agent of uid 0 reads root's files, the key of egret's CA and `file:` secrets among them, unless the unit hides them (`InaccessiblePaths=`).",
);

pub(super) const fn families(whom: &'static [Who]) -> Known {
    Through(whom, FAMILIES)
}

pub(super) const fn processes(whom: &'static [Who]) -> Known {
    Through(whom, PROCESSES)
}
