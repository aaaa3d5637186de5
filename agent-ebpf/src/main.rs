//! The kernel programs, in the order in which a socket lives.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{macros::cgroup_sock, programs::SockContext};
    #[cgroup_sock(sock_create)]
    pub fn sock_create(_ctx: SockContext) -> i32 {
        0
    }
    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
