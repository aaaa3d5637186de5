//! The kernel programs, in the order in which a socket lives.
//!
//! An entry point only translates: it calls its file, and [`verdict`] turns what came back into
//! what the kernel understands. Every failure is a refusal.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "a kernel program reads contexts and map values by pointer")
)]

#[cfg(target_arch = "bpf")]
mod agent;
#[cfg(target_arch = "bpf")]
mod bind;
#[cfg(target_arch = "bpf")]
mod closed;
#[cfg(target_arch = "bpf")]
mod connect;
#[cfg(target_arch = "bpf")]
mod context;
#[cfg(target_arch = "bpf")]
mod egress;
#[cfg(target_arch = "bpf")]
mod error;
#[cfg(target_arch = "bpf")]
mod events;
#[cfg(target_arch = "bpf")]
mod local;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod sendmsg;
#[cfg(target_arch = "bpf")]
mod sock_create;
#[cfg(target_arch = "bpf")]
mod sock_ops;

/// The programs run in the kernel; on the host this binary has nothing to do.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    use agent_ebpf::abi::Hook;
    use agent_ebpf::decide::Denied;
    use aya_ebpf::macros::{cgroup_skb, cgroup_sock, cgroup_sock_addr, sock_ops};
    use aya_ebpf::programs::{SkBuffContext, SockAddrContext, SockContext, SockOpsContext};

    use crate::context::Destination;
    use crate::error::Error;
    use crate::events::{self, Subject};
    use crate::{bind, closed, connect, egress, sendmsg, sock_create};

    const PASS: i32 = 1;
    const REFUSE: i32 = 0;

    /// What the kernel is told. Every error is named here, so a new one cannot be forgotten.
    #[inline(always)]
    fn verdict(hook: Hook, subject: &Subject, result: Result<(), Error>) -> i32 {
        let denied = match result {
            Ok(()) => return PASS,
            Err(Error::Denied(denied)) => denied,
            Err(Error::FlowsFull) => Denied::FlowMapFull,
            Err(Error::NoStorage | Error::NoLease) => Denied::Unavailable,
        };
        events::refused(hook, denied, subject);
        REFUSE
    }

    #[inline(always)]
    fn destination(
        hook: Hook,
        ctx: &SockAddrContext,
        read: fn(&SockAddrContext) -> Destination,
        logic: fn(&SockAddrContext, &Destination) -> Result<(), Error>,
    ) -> i32 {
        events::count(hook as u32);
        let destination = read(ctx);
        verdict(hook, &Subject::from(&destination), logic(ctx, &destination))
    }

    #[cgroup_sock(sock_create)]
    fn sock_create(ctx: SockContext) -> i32 {
        events::count(Hook::SockCreate as u32);
        let (subject, result) = sock_create::check(&ctx);
        verdict(Hook::SockCreate, &subject, result)
    }

    #[cgroup_sock_addr(connect4)]
    fn connect4(ctx: SockAddrContext) -> i32 {
        destination(Hook::Connect4, &ctx, Destination::v4, connect::connect)
    }

    #[cgroup_sock_addr(connect6)]
    fn connect6(ctx: SockAddrContext) -> i32 {
        destination(Hook::Connect6, &ctx, Destination::v6, connect::connect)
    }

    #[cgroup_sock_addr(sendmsg4)]
    fn sendmsg4(ctx: SockAddrContext) -> i32 {
        destination(Hook::Sendmsg4, &ctx, Destination::v4, sendmsg::sendmsg)
    }

    #[cgroup_sock_addr(sendmsg6)]
    fn sendmsg6(ctx: SockAddrContext) -> i32 {
        destination(Hook::Sendmsg6, &ctx, Destination::v6, sendmsg::sendmsg)
    }

    // The next four only show addresses. The verifier lets them answer nothing but "pass".

    #[cgroup_sock_addr(recvmsg4)]
    fn recvmsg4(ctx: SockAddrContext) -> i32 {
        events::count(Hook::Recvmsg4 as u32);
        connect::show_dialled(&ctx, &Destination::v4(&ctx));
        PASS
    }

    #[cgroup_sock_addr(recvmsg6)]
    fn recvmsg6(ctx: SockAddrContext) -> i32 {
        events::count(Hook::Recvmsg6 as u32);
        connect::show_dialled(&ctx, &Destination::v6(&ctx));
        PASS
    }

    #[cgroup_sock_addr(getpeername4)]
    fn getpeername4(ctx: SockAddrContext) -> i32 {
        events::count(Hook::Getpeername4 as u32);
        connect::show_dialled(&ctx, &Destination::v4(&ctx));
        PASS
    }

    #[cgroup_sock_addr(getpeername6)]
    fn getpeername6(ctx: SockAddrContext) -> i32 {
        events::count(Hook::Getpeername6 as u32);
        connect::show_dialled(&ctx, &Destination::v6(&ctx));
        PASS
    }

    #[cgroup_sock_addr(bind4)]
    fn bind4(ctx: SockAddrContext) -> i32 {
        destination(Hook::Bind4, &ctx, Destination::v4, bind::bind)
    }

    #[cgroup_sock_addr(bind6)]
    fn bind6(ctx: SockAddrContext) -> i32 {
        destination(Hook::Bind6, &ctx, Destination::v6, bind::bind)
    }

    /// Its answer is ignored by the kernel for the operations that are handled here.
    #[sock_ops]
    fn sock_ops(ctx: SockOpsContext) -> u32 {
        events::count(Hook::SockOps as u32);
        crate::sock_ops::follow(&ctx);
        1
    }

    #[cgroup_skb(egress)]
    fn egress(ctx: SkBuffContext) -> i32 {
        events::count(Hook::Egress as u32);
        match egress::check(&ctx) {
            Ok(()) => PASS,
            Err(error) => verdict(Hook::Egress, &egress::subject(&ctx), Err(error)),
        }
    }

    // The programs that stand where agents will be.

    #[cgroup_sock(sock_create)]
    fn closed_sock_create(ctx: SockContext) -> i32 {
        verdict(Hook::SockCreate, &sock_create::subject(&ctx), closed::process())
    }

    #[inline(always)]
    fn closed_destination(
        hook: Hook,
        ctx: &SockAddrContext,
        read: fn(&SockAddrContext) -> Destination,
    ) -> i32 {
        match closed::process() {
            Ok(()) => PASS,
            Err(error) => verdict(hook, &Subject::from(&read(ctx)), Err(error)),
        }
    }

    #[cgroup_sock_addr(connect4)]
    fn closed_connect4(ctx: SockAddrContext) -> i32 {
        closed_destination(Hook::Connect4, &ctx, Destination::v4)
    }

    #[cgroup_sock_addr(connect6)]
    fn closed_connect6(ctx: SockAddrContext) -> i32 {
        closed_destination(Hook::Connect6, &ctx, Destination::v6)
    }

    #[cgroup_sock_addr(sendmsg4)]
    fn closed_sendmsg4(ctx: SockAddrContext) -> i32 {
        closed_destination(Hook::Sendmsg4, &ctx, Destination::v4)
    }

    #[cgroup_sock_addr(sendmsg6)]
    fn closed_sendmsg6(ctx: SockAddrContext) -> i32 {
        closed_destination(Hook::Sendmsg6, &ctx, Destination::v6)
    }

    #[cgroup_skb(egress)]
    fn closed_egress(ctx: SkBuffContext) -> i32 {
        match closed::packet(&ctx) {
            Ok(()) => PASS,
            Err(error) => verdict(Hook::Egress, &egress::subject(&ctx), Err(error)),
        }
    }

    #[cgroup_sock(sock_release)]
    fn sock_release(ctx: SockContext) -> i32 {
        events::count(Hook::SockRelease as u32);
        connect::release(&ctx);
        PASS
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing panics: arithmetic wraps in release builds and nothing is indexed out of bounds. A
    // panic that crept in would be this loop, which the verifier refuses to load.
    loop {}
}
