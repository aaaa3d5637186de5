//! `socket()`: only what the other hooks can govern comes into being.

use agent_ebpf::address::{Address, Port};
use agent_ebpf::decide::{self, Dial};
use aya_ebpf::programs::SockContext;

use crate::error::Error;
use crate::events::Subject;

#[inline(always)]
pub(crate) fn check(ctx: &SockContext) -> (Subject, Result<(), Error>) {
    let (family, kind, protocol) = kind(ctx);
    (subject(ctx), decide::socket(family, kind, protocol).map_err(Error::from))
}

/// What is about to be opened.
#[inline(always)]
pub(crate) fn subject(ctx: &SockContext) -> Subject {
    let (family, kind, protocol) = kind(ctx);
    Subject {
        dial: Dial {
            // The low byte is enough to name what was refused; the verdict sees all of it.
            protocol: protocol as u8,
            dst: Address([0; 4]),
            port: Port::from_network(0),
        },
        family: family as u16,
        socket_type: kind as u16,
        packet: None,
    }
}

/// Family, type and protocol.
#[inline(always)]
fn kind(ctx: &SockContext) -> (u32, u32, u32) {
    let sock = ctx.sock;
    // SAFETY: the kernel's context is valid while the program runs; volatile keeps the accesses
    // apart, each at the width that the verifier expects.
    unsafe {
        (
            (&raw const (*sock).family).read_volatile(),
            (&raw const (*sock).type_).read_volatile(),
            (&raw const (*sock).protocol).read_volatile(),
        )
    }
}
