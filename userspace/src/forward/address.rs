//! Pure: which addresses an upstream may have. A name that an agent may use can be made to
//! resolve to anything by whoever owns it: to the host itself, to its private network, to the
//! service that hands the machine's cloud credentials out. So every address that a name resolves
//! to is checked here, and only addresses of the public Internet pass unless the operator listed
//! the network. The registries are IANA's IPv4 and IPv6 Special-Purpose Address Registries.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// Why an address is not one of the public Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    /// 0.0.0.0/8, `::`: Linux connects to itself.
    Unspecified,
    /// 127.0.0.0/8, `::1`.
    Loopback,
    /// RFC 1918: 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16.
    Private,
    /// 100.64.0.0/10, RFC 6598: behind a carrier's NAT, and many overlay networks.
    CarrierNat,
    /// 169.254.0.0/16, fe80::/10.
    LinkLocal,
    /// fc00::/7, RFC 4193, and the old site-local fec0::/10.
    UniqueLocal,
    /// 224.0.0.0/4, ff00::/8.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24, 2001:db8::/32, 3fff::/20.
    Documentation,
    /// 198.18.0.0/15, 2001:2::/48: egret's own synthetic addresses among them.
    Benchmarking,
    /// The rest of what is not routed: 192.0.0.0/24, 240.0.0.0/4, everything outside 2000::/3.
    Reserved,
    /// `::a.b.c.d`, long deprecated.
    V4Compatible,
    /// 64:ff9b::/96 around an IPv4 address that is itself special.
    Nat64,
    /// 64:ff9b:1::/48, RFC 8215: a NAT64 of the local network.
    LocalNat64,
    /// 2002::/16 and its relays 192.88.99.0/24.
    SixToFour,
    /// 2001::/32.
    Teredo,
    /// A service of a cloud that tells a machine its credentials or settings.
    Metadata(Cloud),
}

/// Whose metadata service it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cloud {
    /// 169.254.169.254: AWS, Azure, Google Cloud, Oracle, OpenStack, DigitalOcean and others.
    Common,
    Aws,
    Azure,
    Google,
    Alibaba,
    Oracle,
    OpenStack,
    Scaleway,
    Tencent,
    Akamai,
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "the unspecified address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::CarrierNat => "an address behind a carrier's NAT",
            Self::LinkLocal => "a link-local address",
            Self::UniqueLocal => "a unique local address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Documentation => "a documentation address",
            Self::Benchmarking => "a benchmarking address",
            Self::Reserved => "a reserved address",
            Self::V4Compatible => "an IPv4-compatible address",
            Self::Nat64 => "a NAT64 address of a special IPv4 address",
            Self::LocalNat64 => "an address of a local NAT64",
            Self::SixToFour => "a 6to4 address",
            Self::Teredo => "a Teredo address",
            Self::Metadata(_) => "a cloud metadata service",
        })
    }
}

/// Whether egret may dial `ip` for a name that policy allowed. `private` is what the operator
/// opened: a network opens the special addresses that it contains. A metadata service is opened
/// only by its own address (`/32` or `/128`), never by a network around it, and it is found behind
/// NAT64, 6to4 and the other ways to write an IPv4 address in an IPv6 one.
///
/// # Errors
/// What is special about `ip`.
pub fn check(ip: IpAddr, private: &[IpNetwork]) -> Result<(), Special> {
    let ip = ip.to_canonical();
    let Some(special) = special(ip) else {
        return Ok(());
    };
    let exact_only = matches!(special, Special::Metadata(_));
    let opens = |net: &IpNetwork| net.contains(ip) && (!exact_only || is_single(net));
    if private.iter().any(opens) { Ok(()) } else { Err(special) }
}

fn is_single(net: &IpNetwork) -> bool {
    match net {
        IpNetwork::V4(net) => net.prefix() == 32,
        IpNetwork::V6(net) => net.prefix() == 128,
    }
}

/// What is special about `ip`, or `None` for an ordinary address of the public Internet. An
/// IPv4-mapped IPv6 address is the IPv4 address.
pub fn special(ip: IpAddr) -> Option<Special> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => special_v4(ip),
        IpAddr::V6(ip) => special_v6(ip),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Network {
    match Ipv4Network::new_checked(Ipv4Addr::new(a, b, c, d), prefix) {
        Some(net) => net,
        None => panic!("a prefix of the table is longer than 32"),
    }
}

const fn v6(a: [u16; 4], prefix: u8) -> Ipv6Network {
    match Ipv6Network::new_checked(Ipv6Addr::new(a[0], a[1], a[2], a[3], 0, 0, 0, 0), prefix) {
        Some(net) => net,
        None => panic!("a prefix of the table is longer than 128"),
    }
}

/// The first match speaks, so a smaller network stands above the one around it.
const V4: [(Ipv4Network, Special); 24] = [
    (v4(169, 254, 169, 254, 32), Special::Metadata(Cloud::Common)),
    (v4(169, 254, 170, 2, 32), Special::Metadata(Cloud::Aws)), // container credentials
    (v4(169, 254, 170, 23, 32), Special::Metadata(Cloud::Aws)), // pod identity
    (v4(168, 63, 129, 16, 32), Special::Metadata(Cloud::Azure)), // in a public range
    (v4(100, 100, 100, 200, 32), Special::Metadata(Cloud::Alibaba)),
    (v4(192, 0, 0, 192, 32), Special::Metadata(Cloud::Oracle)),
    (v4(169, 254, 42, 42, 32), Special::Metadata(Cloud::Scaleway)),
    (v4(169, 254, 0, 23, 32), Special::Metadata(Cloud::Tencent)),
    (v4(0, 0, 0, 0, 8), Special::Unspecified),
    (v4(127, 0, 0, 0, 8), Special::Loopback),
    (v4(10, 0, 0, 0, 8), Special::Private),
    (v4(172, 16, 0, 0, 12), Special::Private),
    (v4(192, 168, 0, 0, 16), Special::Private),
    (v4(100, 64, 0, 0, 10), Special::CarrierNat),
    (v4(169, 254, 0, 0, 16), Special::LinkLocal),
    (v4(192, 0, 0, 0, 24), Special::Reserved),
    (v4(192, 88, 99, 0, 24), Special::SixToFour),
    (v4(198, 18, 0, 0, 15), Special::Benchmarking),
    (v4(224, 0, 0, 0, 4), Special::Multicast),
    (v4(255, 255, 255, 255, 32), Special::Broadcast),
    (v4(240, 0, 0, 0, 4), Special::Reserved),
    (v4(192, 0, 2, 0, 24), Special::Documentation),
    (v4(198, 51, 100, 0, 24), Special::Documentation),
    (v4(203, 0, 113, 0, 24), Special::Documentation),
];

fn special_v4(ip: Ipv4Addr) -> Option<Special> {
    V4.iter().find(|(net, _)| net.contains(ip)).map(|&(_, special)| special)
}

/// Metadata services by IPv6 address.
const V6_METADATA: [(Ipv6Addr, Cloud); 7] = [
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Cloud::Aws),
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23), Cloud::Aws), // pod identity
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), Cloud::Google),
    (Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe), Cloud::Oracle),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe), Cloud::OpenStack),
    (Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42), Cloud::Scaleway),
    (Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1), Cloud::Akamai),
];

const NAT64: Ipv6Network = v6([0x64, 0xff9b, 0, 0], 96);

/// The first match speaks. What is public lies in 2000::/3; see [`special_v6`].
const V6: [(Ipv6Network, Special); 14] = [
    (v6([0x64, 0xff9b, 1, 0], 48), Special::LocalNat64),
    (v6([0x2001, 0, 0, 0], 32), Special::Teredo),
    (v6([0x2001, 2, 0, 0], 48), Special::Benchmarking),
    (v6([0x2001, 0xdb8, 0, 0], 32), Special::Documentation),
    (v6([0x2001, 0x10, 0, 0], 28), Special::Reserved), // ORCHID
    (v6([0x2001, 0x20, 0, 0], 28), Special::Reserved), // ORCHIDv2
    (v6([0x2001, 0, 0, 0], 23), Special::Reserved),    // protocol assignments
    (v6([0x2002, 0, 0, 0], 16), Special::SixToFour),
    (v6([0x3fff, 0, 0, 0], 20), Special::Documentation),
    (v6([0xfc00, 0, 0, 0], 7), Special::UniqueLocal),
    (v6([0xfec0, 0, 0, 0], 10), Special::UniqueLocal),
    (v6([0xfe80, 0, 0, 0], 10), Special::LinkLocal),
    (v6([0xff00, 0, 0, 0], 8), Special::Multicast),
    (v6([0, 0, 0, 0], 96), Special::V4Compatible),
];

const GLOBAL_UNICAST: Ipv6Network = v6([0x2000, 0, 0, 0], 3);

fn special_v6(ip: Ipv6Addr) -> Option<Special> {
    if ip.is_unspecified() {
        return Some(Special::Unspecified);
    }
    if ip.is_loopback() {
        return Some(Special::Loopback);
    }
    let service = V6_METADATA.iter().find(|(known, _)| *known == ip).map(|&(_, cloud)| cloud);
    if let Some(cloud) = service.or_else(|| embedded_metadata(ip)) {
        return Some(Special::Metadata(cloud));
    }
    if NAT64.contains(ip) {
        // The well-known prefix is how an IPv6-only network reaches the public IPv4 Internet.
        return special_v4(last_four(ip)).map(|_| Special::Nat64);
    }
    let listed = V6.iter().find(|(net, _)| net.contains(ip)).map(|&(_, special)| special);
    listed.or_else(|| (!GLOBAL_UNICAST.contains(ip)).then_some(Special::Reserved))
}

/// The cloud whose IPv4 metadata service is written inside `ip`, in any place where a translator
/// on the way would look for an IPv4 address.
fn embedded_metadata(ip: Ipv6Addr) -> Option<Cloud> {
    let o = ip.octets();
    let teredo_client = [o[12] ^ 255, o[13] ^ 255, o[14] ^ 255, o[15] ^ 255];
    let places: &[[u8; 4]] = match ip.segments() {
        [0x64, 0xff9b, 1, ..] => &[
            // RFC 6052, prefixes of 48, 56, 64 and 96 bits; octet 8 is skipped.
            [o[6], o[7], o[9], o[10]],
            [o[7], o[9], o[10], o[11]],
            [o[9], o[10], o[11], o[12]],
            [o[12], o[13], o[14], o[15]],
        ],
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0, ..] => &[[o[12], o[13], o[14], o[15]]],
        [0x2002, ..] => &[[o[2], o[3], o[4], o[5]]],
        [0x2001, 0, ..] => &[[o[4], o[5], o[6], o[7]], teredo_client],
        _ => &[],
    };
    places.iter().find_map(|&v4| {
        let Some(Special::Metadata(cloud)) = special_v4(v4.into()) else { return None };
        Some(cloud)
    })
}

fn last_four(ip: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = ip.octets();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
