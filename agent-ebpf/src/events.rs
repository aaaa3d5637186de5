//! Counting what runs, and telling userspace what was refused.

use agent_ebpf::abi::{Event, Hook, STAT_EVENTS_DROPPED};
use agent_ebpf::decide::{Denied, Dial};
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;

use crate::agent;
use crate::context::Destination;
use crate::maps::{EVENTS, STATS};

/// What a refusal is about.
pub(crate) struct Subject {
    pub(crate) dial: Dial,
    pub(crate) family: u16,
    pub(crate) socket_type: u16,
    /// For packets, which may leave while somebody else runs: whose they are. Otherwise the running
    /// process is the one that asked.
    pub(crate) packet: Option<Packet>,
}

/// A packet that tried to leave.
pub(crate) struct Packet {
    pub(crate) ifindex: u32,
    pub(crate) agent: u64,
    pub(crate) cgroup: u64,
}

impl From<&Destination> for Subject {
    #[inline(always)]
    fn from(destination: &Destination) -> Self {
        Self { dial: destination.dial, family: 0, socket_type: 0, packet: None }
    }
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(index: u32) {
    if let Some(counter) = STATS.get_ptr_mut(index) {
        // SAFETY: the entry of this CPU, which no program on another CPU writes. A program that
        // interrupts this one can at worst lose a count.
        unsafe { *counter += 1 };
    }
}

/// Writes an event. Nobody is woken: userspace reads the ring on a timer, which makes a refusal
/// seven times cheaper. An event that does not fit is counted.
#[inline(always)]
pub(crate) fn refused(hook: Hook, denied: Denied, subject: &Subject) {
    let Some(mut entry) = EVENTS.reserve(0) else {
        count(STAT_EVENTS_DROPPED);
        return;
    };
    let event = zeroed(entry.as_mut_ptr());
    agent::describe_dial(&mut event.origin, &subject.dial);
    match &subject.packet {
        Some(packet) => {
            event.origin.agent = packet.agent;
            event.origin.cgroup = packet.cgroup;
            event.ifindex = packet.ifindex;
        }
        None => {
            agent::describe_process(&mut event.origin);
            event.origin.agent = agent::current_id();
        }
    }
    event.family = subject.family;
    event.socket_type = subject.socket_type;
    event.denied = denied as u8;
    event.hook = hook as u8;
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// Fills an event with zeros, a word at a time: `memset` here is a call that writes single bytes.
#[inline(always)]
fn zeroed<'a>(event: *mut Event) -> &'a mut Event {
    let words: *mut u64 = event.cast();
    for i in 0..size_of::<Event>() / size_of::<u64>() {
        // SAFETY: reserved memory of the size of an event, which is a whole number of words.
        // Volatile, so that this loop is not turned into the call that it avoids.
        unsafe { words.add(i).write_volatile(0) };
    }
    // SAFETY: every byte has just been written, and zeros are a valid event.
    unsafe { &mut *event }
}
