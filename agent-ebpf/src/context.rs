//! Reading and writing the context of the address hooks.
//!
//! Every access is volatile: LLVM otherwise merges neighbouring ones into a width that the
//! verifier refuses.

use agent_ebpf::abi::{IPPROTO_TCP, IPPROTO_UDP};
use agent_ebpf::address::{Address, Port};
use agent_ebpf::decide::Dial;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use core::ffi::c_void;

/// What an address hook is asked about.
pub(crate) struct Destination {
    pub(crate) dial: Dial,
    /// Whether the hook is one of those for `sockaddr_in`, whatever the family of the socket.
    pub(crate) sockaddr_in: bool,
}

/// Reads a field of a kernel structure.
macro_rules! field {
    ($ctx:expr, $($field:tt)+) => {
        // SAFETY: the structure is valid while the program runs; the verifier checks that this
        // field may be read.
        unsafe { (&raw const (*$ctx).$($field)+).read_volatile() }
    };
}

pub(crate) use field;

macro_rules! set_field {
    ($ctx:expr, $value:expr, $($field:tt)+) => {
        // SAFETY: as for reading; the verifier checks that this field may be written.
        unsafe { (&raw mut (*$ctx).$($field)+).write_volatile($value) }
    };
}

impl Destination {
    #[inline(always)]
    pub(crate) fn v4(ctx: &SockAddrContext) -> Self {
        let raw = ctx.sock_addr;
        Self { dial: dial(raw, Address::v4(field!(raw, user_ip4))), sockaddr_in: true }
    }

    #[inline(always)]
    pub(crate) fn v6(ctx: &SockAddrContext) -> Self {
        let raw = ctx.sock_addr;
        let address = Address([
            field!(raw, user_ip6[0]),
            field!(raw, user_ip6[1]),
            field!(raw, user_ip6[2]),
            field!(raw, user_ip6[3]),
        ]);
        Self { dial: dial(raw, address), sockaddr_in: false }
    }

    /// Puts another address and port in the place of this one. Only for hooks that may write.
    #[inline(always)]
    pub(crate) fn replace(&self, ctx: &SockAddrContext, address: Address, port: Port) {
        let raw = ctx.sock_addr;
        if self.sockaddr_in {
            set_field!(raw, address.0[3], user_ip4);
        } else {
            set_field!(raw, address.0[0], user_ip6[0]);
            set_field!(raw, address.0[1], user_ip6[1]);
            set_field!(raw, address.0[2], user_ip6[2]);
            set_field!(raw, address.0[3], user_ip6[3]);
        }
        set_field!(raw, u32::from(port.network()), user_port);
    }
}

#[inline(always)]
fn dial(raw: *mut bpf_sock_addr, dst: Address) -> Dial {
    // Any other protocol becomes 0, which no verdict lets pass.
    let protocol = match field!(raw, protocol) {
        p if p == u32::from(IPPROTO_TCP) => IPPROTO_TCP,
        p if p == u32::from(IPPROTO_UDP) => IPPROTO_UDP,
        _ => 0,
    };
    Dial { protocol, dst, port: Port::from_network(field!(raw, user_port) as u16) }
}

/// The socket, as the storage helpers take it.
#[inline(always)]
pub(crate) fn socket(ctx: &SockAddrContext) -> *mut c_void {
    field!(ctx.sock_addr, __bindgen_anon_1.sk).cast()
}
