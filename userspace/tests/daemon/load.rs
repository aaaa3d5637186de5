//! Processes of agents that try without pause, each on a wire of its own, so that every packet that
//! leaves is counted for whom it is.

use std::fs;
use std::process::{Child, Command};

use serde_json::Value;

use crate::probe::{ask, start_long};
use crate::world::{World, eventually};

/// Tries the served name, and TCP and UDP to an address that nobody serves; tells on demand what
/// came of it since the last time.
const LOAD: &str = "
import json, select
def fresh(): return dict(rounds=0, served=0, refused=0, other=0, tcp_refused=0, tcp_taken=0, udp_refused=0, udp_left=0)
count = fresh()
def served():
    try: r = echo()
    except OSError: r = 'error'
    count['served' if r is None else 'refused'] += 1
def tcp():
    with socket.socket() as t:
        t.settimeout(0.05)
        try:
            t.connect((NOBODY, 443)); count['tcp_taken'] += 1
        except TimeoutError: count['other'] += 1
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u: u.sendto(b'x', (NOBODY, 9)); count['udp_left'] += 1
say('runs')
while True:
    count['rounds'] += 1
    if count['rounds'] % 8 == 1: served()
    for way, name in (tcp, 'tcp_refused'), (udp, 'udp_refused'):
        try: way()
        except OSError: count[name] += 1
    if select.select([0], [], [], 0.002)[0]:
        if not sys.stdin.readline(): break
        say(json.dumps(count)); count = fresh()
";

/// One of them.
pub(crate) struct Load {
    child: Child,
    /// The interface by which its packets would leave.
    wire: String,
    sums: Vec<(String, u64)>,
}

impl Load {
    /// Starts one in a group that is not governed yet, with a wire of its own: the control that
    /// what it tries is seen there.
    pub(crate) fn start(w: &World, group: &str, number: u8) -> Self {
        let wire = format!("wire{number}");
        let to = format!("203.0.113.{number}");
        let line = format!(
            "ip link add {wire} type veth peer name far{number}
            echo 1 > /proc/sys/net/ipv6/conf/{wire}/disable_ipv6
            echo 1 > /proc/sys/net/ipv6/conf/far{number}/disable_ipv6
            ip addr add 10.8.{number}.1/24 dev {wire}
            ip link set {wire} up; ip link set far{number} up
            ip neigh add 10.8.{number}.2 lladdr 02:00:00:00:00:02 dev {wire}
            ip route add {to}/32 via 10.8.{number}.2"
        );
        let made = Command::new("sh").args(["-ec", &line]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        assert_eq!(sent(&wire), 0, "nobody else uses it");
        let script = format!("NOBODY = '{to}'\n{LOAD}");
        let mut child = start_long(&w.at(group), &script);
        assert_eq!(crate::probe::line(&mut child), "runs");
        let mut load = Self { child, wire, sums: Vec::new() };
        eventually("the control: without egret it leaves", || sent(&load.wire) > 10);
        let count = load.count();
        assert!(count["udp_left"].as_u64() > Some(0) && count["served"] == 0, "{count}");
        load.sums.clear();
        load
    }

    /// What it tried since the last time.
    pub(crate) fn count(&mut self) -> Value {
        let count: Value = serde_json::from_str(&ask(&mut self.child, "")).unwrap();
        for (name, n) in count.as_object().unwrap() {
            let n = n.as_u64().unwrap();
            match self.sums.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += n,
                None => self.sums.push((name.clone(), n)),
            }
        }
        count
    }

    /// Waits until it is served.
    #[track_caller]
    pub(crate) fn is_served(&mut self) {
        self.count();
        eventually("an agent under load is served", || self.count()["served"].as_u64() > Some(0));
    }

    /// Packets that have left so far.
    pub(crate) fn sent(&self) -> u64 {
        sent(&self.wire)
    }

    /// Ends it; answers the sums of all that it tried.
    pub(crate) fn end(mut self) -> Vec<(String, u64)> {
        self.count();
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
        self.sums
    }
}

/// Packets sent by an interface of this thread's namespace.
fn sent(interface: &str) -> u64 {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let prefix = format!("{interface}:");
    let row = table.lines().find_map(|line| line.trim_start().strip_prefix(&prefix)).unwrap();
    row.split_whitespace().nth(9).unwrap().parse().unwrap()
}
