//! Pure: names and their synthetic addresses. Every name that an agent asks for gets one IPv4
//! and one IPv6 address that mean this name and nothing else, for as long as the session lives.
//! A connection to such an address carries its name, whatever protocol is spoken on it.
//!
//! IPv4 addresses come from 198.18.0.0/15 (benchmarking, RFC 2544: never routed), IPv6 addresses
//! from fd65:6772:6574::/64 (unique local; the bytes spell "egret"). 198.18.0.0/24 and
//! fd65:6772:6574::/112 are never handed out: the addresses of the loopback interface and of the
//! resolver live there.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::policy::HostName;

/// The IPv4 address that the loopback interface of a private namespace carries beside 127.0.0.1,
/// and at which the resolver listens.
pub const LOCAL_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// The IPv6 address that the loopback interface of a private namespace carries beside `::1`, and
/// at which the resolver listens.
pub const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0xfd65, 0x6772, 0x6574, 0, 0, 0, 0, 1);

/// The most names one agent can hold. A policy with wildcards allows any number of names, so the
/// table must be bounded by count: at most some 20 MiB of names and indexes.
pub const MAX_NAMES: usize = 65_536;

/// The part of [`MAX_NAMES`] that names which no rule could allow may take, so that a flood of
/// them cannot displace the names that the policy does allow.
pub const MAX_UNMATCHED: usize = 16_384;

const V4_NET: u32 = 0xc612_0000; // 198.18.0.0
const V4_MASK: u32 = 0xfffe_0000; // /15
const V4_RESERVED: u32 = 0x100; // 198.18.0.0/24

const V6_NET: u128 = 0xfd65_6772_6574_0000_0000_0000_0000_0000;
const V6_MASK: u128 = !(u64::MAX as u128); // /64
const V6_RESERVED: u128 = 0x1_0000; // /112

/// The two addresses of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Pair {
    /// The addresses of the name at `index`, which is below [`MAX_NAMES`].
    fn at(index: u32) -> Self {
        Self {
            v4: Ipv4Addr::from(V4_NET + V4_RESERVED + index),
            v6: Ipv6Addr::from(V6_NET + V6_RESERVED + u128::from(index)),
        }
    }
}

/// Whether a name counts as one that the policy could allow, for the bounds of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Some rule could allow it.
    Allowed,
    /// No rule could allow it; it gets an address so that the refusal can be a readable answer.
    Unmatched,
}

/// Why a name gets no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    #[error("this agent has asked for too many names ({held} are held)")]
    Exhausted {
        /// How many names are held.
        held: usize,
    },
    #[error("the name could not be kept, and its address could come to mean another one")]
    NotKept,
}

/// Writes a new name down before its address is given out, so that the next process that serves
/// the agent gives it the same one. False: it could not.
pub type Keep = Box<dyn FnMut(&HostName, Standing) -> bool + Send + Sync>;

/// The names of one agent. Readers do not wait for each other.
#[derive(Debug, Default)]
pub struct Names(RwLock<Table>);

#[derive(Default)]
struct Table {
    by_name: HashMap<HostName, u32>,
    by_index: Vec<HostName>,
    unmatched: usize,
    keep: Option<Keep>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("names", &self.by_index.len()).finish_non_exhaustive()
    }
}

impl Names {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// A pool that holds these already, in the order in which they were added; what comes to it is
    /// kept by `keep`.
    pub fn kept(names: impl IntoIterator<Item = (HostName, Standing)>, keep: Keep) -> Self {
        let mut table = Table::default();
        for (name, standing) in names {
            let _ = table.add(&name, standing); // more than a pool can hold were never kept
        }
        table.keep = Some(keep);
        Self(RwLock::new(table))
    }

    /// The addresses of `name`: the same for every call in the life of the pool.
    ///
    /// # Errors
    /// When the name is new, and the bound of its standing is reached or it cannot be kept.
    pub fn assign(&self, name: &HostName, standing: Standing) -> Result<Pair, AssignError> {
        if let Some(pair) = self.pair_of(name) {
            return Ok(pair);
        }
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(&index) = table.by_name.get(name) {
            return Ok(Pair::at(index)); // another thread was faster
        }
        table.add(name, standing).map(Pair::at)
    }

    /// The addresses of `name` if it has been asked for.
    pub fn pair_of(&self, name: &HostName) -> Option<Pair> {
        self.read().by_name.get(name).copied().map(Pair::at)
    }

    /// The name that `ip` stands for. `None` for an address outside the synthetic ranges, and for
    /// one inside them that was never handed out: with [`is_synthetic`] that is a refusal.
    pub fn name_of(&self, ip: IpAddr) -> Option<HostName> {
        let index = index_of(ip)?;
        self.read().by_index.get(index).cloned()
    }

    /// How many names are held.
    pub fn len(&self) -> usize {
        self.read().by_index.len()
    }

    /// Whether no name is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing that runs under the lock can panic with the table half changed, so a poisoned lock
    /// is still good.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn add(&mut self, name: &HostName, standing: Standing) -> Result<u32, AssignError> {
        let held = self.by_index.len();
        let unmatched = standing == Standing::Unmatched;
        if held >= MAX_NAMES || (unmatched && self.unmatched >= MAX_UNMATCHED) {
            return Err(AssignError::Exhausted { held });
        }
        let index = u32::try_from(held).map_err(|_| AssignError::Exhausted { held })?;
        if self.keep.as_mut().is_some_and(|keep| !keep(name, standing)) {
            return Err(AssignError::NotKept);
        }
        self.by_index.push(name.clone());
        self.by_name.insert(name.clone(), index);
        self.unmatched += usize::from(unmatched);
        Ok(index)
    }
}

/// Whether `ip` lies in the synthetic ranges, the reserved blocks included. Such an address means
/// nothing outside its agent and is never dialled.
pub fn is_synthetic(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => u32::from(v4) & V4_MASK == V4_NET,
        IpAddr::V6(v6) => u128::from(v6) & V6_MASK == V6_NET,
    }
}

/// The position in the table that `ip` stands for; `None` outside the ranges and in the reserved
/// blocks.
fn index_of(ip: IpAddr) -> Option<usize> {
    if !is_synthetic(ip) {
        return None;
    }
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            usize::try_from((u32::from(v4) & !V4_MASK).checked_sub(V4_RESERVED)?).ok()
        }
        IpAddr::V6(v6) => {
            usize::try_from((u128::from(v6) & !V6_MASK).checked_sub(V6_RESERVED)?).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_keeps_its_addresses_and_they_lead_back_to_it() {
        let names = Names::new();
        let first = names.assign(&name("a.example"), Standing::Allowed).unwrap();
        let second = names.assign(&name("b.example"), Standing::Unmatched).unwrap();
        assert_eq!(first, names.assign(&name("A.example."), Standing::Allowed).unwrap());
        assert_eq!(first.v4, Ipv4Addr::new(198, 18, 1, 0));
        assert_eq!(IpAddr::V6(first.v6), ip("fd65:6772:6574::1:0"));
        assert_ne!(first, second);
        assert_eq!(names.len(), 2);
        for (pair, text) in [(first, "a.example"), (second, "b.example")] {
            for ip in [pair.v4.into(), pair.v6.into(), pair.v4.to_ipv6_mapped().into()] {
                assert_eq!(names.name_of(ip), Some(name(text)), "{ip}");
                assert!(is_synthetic(ip));
            }
        }
    }

    #[test]
    fn no_name_for_reserved_foreign_or_unassigned_addresses() {
        let names = Names::new();
        names.assign(&name("a.example"), Standing::Allowed).unwrap();
        for (text, synthetic) in [
            ("198.18.0.0", true),
            ("198.18.0.1", true),
            ("198.18.0.255", true),
            ("198.18.1.1", true),
            ("198.19.255.255", true),
            ("::ffff:198.18.0.1", true),
            ("198.17.255.255", false),
            ("198.20.0.0", false),
            ("127.0.0.1", false),
            ("::198.18.1.0", false),
            ("fd65:6772:6574::", true),
            ("fd65:6772:6574::1", true),
            ("fd65:6772:6574::ffff", true),
            ("fd65:6772:6574::1:1", true),
            ("fd65:6772:6574:0:ffff:ffff:ffff:ffff", true),
            ("fd65:6772:6574:1::1:0", false),
            ("fd65:6772:6575::1:0", false),
            ("::1", false),
        ] {
            assert_eq!(names.name_of(ip(text)), None, "{text}");
            assert_eq!(is_synthetic(ip(text)), synthetic, "{text}");
        }
        assert!(names.name_of(ip("198.18.1.0")).is_some(), "control");
        assert!(names.name_of(ip("fd65:6772:6574::1:0")).is_some(), "control");
    }

    #[test]
    fn a_flood_is_bounded_and_unmatched_names_leave_room_for_allowed_ones() {
        let names = Names::new();
        for i in 0..MAX_UNMATCHED {
            names.assign(&name(&format!("u{i}.example")), Standing::Unmatched).unwrap();
        }
        let one_more = names.assign(&name("more.example"), Standing::Unmatched);
        assert_eq!(one_more, Err(AssignError::Exhausted { held: MAX_UNMATCHED }));
        names.assign(&name("u0.example"), Standing::Unmatched).expect("a known name stays known");
        for i in MAX_UNMATCHED..MAX_NAMES {
            names.assign(&name(&format!("a{i}.example")), Standing::Allowed).unwrap();
        }
        let full = names.assign(&name("last.example"), Standing::Allowed);
        assert_eq!(full, Err(AssignError::Exhausted { held: MAX_NAMES }));
        assert_eq!(names.len(), MAX_NAMES);

        let last = names.pair_of(&name(&format!("a{}.example", MAX_NAMES - 1))).unwrap();
        assert!(is_synthetic(last.v4.into()) && is_synthetic(last.v6.into()), "{last:?}");
        assert_eq!(names.name_of(last.v6.into()), names.name_of(last.v4.into()));
    }

    #[test]
    fn what_was_kept_has_its_addresses_again_and_nothing_unkept_gets_one() {
        let written = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let keep = |room: usize| -> Keep {
            let written = std::sync::Arc::clone(&written);
            Box::new(move |name, standing| {
                let mut written = written.lock().unwrap();
                let fits = written.len() < room;
                if fits {
                    written.push((name.clone(), standing));
                }
                fits
            })
        };
        let first = Names::kept([], keep(2));
        let a = first.assign(&name("a.example"), Standing::Allowed).unwrap();
        let b = first.assign(&name("b.example"), Standing::Unmatched).unwrap();
        let full = first.assign(&name("c.example"), Standing::Allowed);
        assert_eq!((full, first.len()), (Err(AssignError::NotKept), 2));
        assert_eq!(first.assign(&name("a.example"), Standing::Allowed), Ok(a));

        let found = written.lock().unwrap().clone();
        let next = Names::kept(found, keep(3));
        let c = next.assign(&name("c.example"), Standing::Allowed).unwrap();
        assert_eq!(next.assign(&name("b.example"), Standing::Unmatched), Ok(b));
        assert_eq!(next.pair_of(&name("a.example")), Some(a));
        assert!(c != a && c != b);
        assert_eq!(written.lock().unwrap().len(), 3, "each is kept once");
    }

    #[test]
    fn threads_that_ask_at_once_agree() {
        let names = Names::new();
        let ask = || (0..500).map(|i| names.assign(&name(&format!("{i}.x")), Standing::Allowed));
        let all: Vec<Vec<_>> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4).map(|_| s.spawn(|| ask().collect())).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(all.windows(2).all(|w| w[0] == w[1]));
        assert_eq!(names.len(), 500);
    }
}
