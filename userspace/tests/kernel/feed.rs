//! Serving without any capability: four descriptors are enough, and good for nothing else.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use agent_ebpf::abi::Hook;
use egret::outcome::Reason;
use egret::redirect::ebpf::{Kernel, KernelError, KernelOptions};
use egret::redirect::feed::Feed;
use egret::redirect::orig_dst::flow_key;
use egret::redirect::pins::PinError;
use egret::redirect::run_time;
use egret::sys::caps;

use crate::options;
use crate::world::in_world;

fn copies(feed: &Feed) -> [OwnedFd; 4] {
    feed.fds().map(|fd| fd.try_clone_to_owned().unwrap())
}

#[test]
fn a_process_without_capabilities_serves() {
    in_world(options(), |w| {
        let fds = copies(w.kernel.feed());
        // A connection that waits, a refusal, and a lease that has ended.
        let out = w.agent(
            "
attempt(lambda: socket.create_connection(('203.0.113.5', 443)).close())
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('203.0.113.5', 443)))
",
        );
        assert_eq!(out, "ok\nEPERM");
        let (accepted, client) = w.tcp4.accept().unwrap();
        let key = flow_key(w.netns, client, accepted.local_addr().unwrap());
        w.kernel.feed().expire().unwrap();

        // Capabilities belong to threads.
        let bare = std::thread::spawn(move || {
            caps::limit_to(0).unwrap();
            // The control: this thread may load, attach and name nothing.
            let refused = Kernel::load(&KernelOptions::default()).unwrap_err();
            assert!(matches!(refused, KernelError::NotPermitted(_)), "{refused}");

            let feed = Feed::from_fds(fds, Duration::from_secs(60)).unwrap();
            let flow = feed.take_flow(&key).unwrap().expect("no flow");
            let dialled: SocketAddr = "203.0.113.5:443".parse().unwrap();
            assert_eq!(flow.original.0, dialled);
            assert_eq!(feed.take_flow(&key).unwrap(), None);
            assert_eq!(feed.sweep_flows(Duration::ZERO).unwrap(), 0);
            let reasons: Vec<_> = feed.events().into_iter().map(|e| e.reason).collect();
            assert_eq!(reasons, [Reason::UdpRefused]);
            assert!(feed.stats().unwrap().runs(Hook::Connect4) >= 2);
            feed.expire().unwrap();
            feed.beat().unwrap();
            feed
        });
        let feed = bare.join().unwrap();
        // The beat of that thread is what lets this pass.
        let probe = "attempt(lambda: socket.create_connection(('203.0.113.5', 443)).close())";
        assert_eq!(w.agent(probe), "ok");
        assert_eq!(feed.stats().unwrap(), w.kernel.feed().stats().unwrap());
        feed.expire().unwrap();
        assert_eq!(w.agent(probe), "EPERM");
    });
}

#[test]
fn a_descriptor_in_the_place_of_another_is_refused() {
    in_world(options(), |w| {
        let feed = w.kernel.feed();
        Feed::from_fds(copies(feed), Duration::from_secs(3)).unwrap();
        for (i, j) in [(0, 1), (1, 2), (2, 3), (0, 3)] {
            let mut fds = copies(feed);
            fds.swap(i, j);
            let refused = Feed::from_fds(fds, Duration::from_secs(3)).unwrap_err();
            assert!(matches!(refused, KernelError::Pins(PinError::Layout { .. })), "{refused}");
        }
    });
}

#[test]
fn what_a_program_costs_is_measured_while_it_is_asked_for() {
    in_world(options(), |w| {
        let probe = "attempt(lambda: socket.create_connection(('203.0.113.5', 443)).close())";
        let connect = || {
            let times = w.kernel.run_times().unwrap();
            assert_eq!(times.len(), Hook::ALL.len());
            times.into_iter().find(|t| t.program == "connect4").unwrap()
        };
        let before = connect();
        let measuring = run_time::measure().unwrap();
        assert_eq!(w.agent(probe), "ok");
        let after = connect();
        assert_eq!(after.runs, before.runs + 1);
        assert!(after.time > before.time);
        drop(measuring);
    });
}
