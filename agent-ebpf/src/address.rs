//! Pure: addresses as both sides of the ABI hold them.

/// An IP address as four 32-bit words whose bytes in memory are the 16 bytes on the wire. IPv4 is
/// always held as IPv4-mapped IPv6, so that `::ffff:a.b.c.d` and `a.b.c.d` are one value.
///
/// Words and not bytes: comparing byte arrays makes the compiler call `memcmp`, which does not
/// exist in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(pub [u32; 4]);

const MAPPED: u32 = u32::from_be(0x0000_ffff);
const ONE: u32 = u32::from_be(1);
const LOOPBACK4: u32 = u32::from_be(0x7f00_0001);

impl Address {
    /// `127.0.0.1`.
    pub const LOOPBACK_V4: Self = Self::v4(LOOPBACK4);
    /// `::1`.
    pub const LOOPBACK_V6: Self = Self([0, 0, 0, ONE]);

    /// From the kernel's 32-bit form in network byte order.
    #[inline(always)]
    pub const fn v4(network_order: u32) -> Self {
        Self([0, 0, MAPPED, network_order])
    }

    /// Whether this is an IPv4 address (written as such, or as IPv4-mapped IPv6).
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// Whether dialling this address stays on the machine: `127.0.0.0/8`, `::1`, and the
    /// unspecified addresses, which the kernel treats as loopback when they are dialled.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            return self.0[3] == 0 || u32::from_be(self.0[3]) >> 24 == 127;
        }
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && (self.0[3] == 0 || self.0[3] == ONE)
    }

    /// `0.0.0.0` or `::`: every address when it is bound, loopback when it is dialled.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        (self.is_v4() || (self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0)) && self.0[3] == 0
    }

    /// The 16 bytes as they stand on the wire.
    pub const fn octets(&self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes());
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1],
            d[2], d[3],
        ]
    }

    /// From the 16 bytes as they stand on the wire.
    pub const fn from_octets(o: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ])
    }
}

#[cfg(not(target_arch = "bpf"))]
impl From<std::net::IpAddr> for Address {
    fn from(ip: std::net::IpAddr) -> Self {
        match ip {
            std::net::IpAddr::V4(v4) => Self::from_octets(v4.to_ipv6_mapped().octets()),
            std::net::IpAddr::V6(v6) => Self::from_octets(v6.octets()),
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
impl From<Address> for std::net::IpAddr {
    /// IPv4-mapped comes back as IPv4.
    fn from(address: Address) -> Self {
        std::net::Ipv6Addr::from(address.octets()).to_canonical()
    }
}

/// A port in network byte order, as the kernel's structures hold it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Port(u16);

impl Port {
    pub const DNS: Self = Self::new(53);

    /// From host order.
    #[inline(always)]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// From network order.
    #[inline(always)]
    pub const fn from_network(port: u16) -> Self {
        Self(port)
    }

    /// In host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// In network order.
    #[inline(always)]
    pub const fn network(self) -> u16 {
        self.0
    }

    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn an_address_survives_the_way_into_the_kernel_and_back() {
        for text in ["1.2.3.4", "127.0.0.1", "0.0.0.0", "::", "::1", "2001:db8::1", "fe80::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(ip)), ip, "{text}");
        }
    }

    #[test]
    fn v4_mapped_is_v4() {
        let mapped: IpAddr = "::ffff:1.2.3.4".parse().unwrap();
        let plain: IpAddr = "1.2.3.4".parse().unwrap();
        assert_eq!(Address::from(mapped), Address::from(plain));
        assert_eq!(Address::v4(u32::from_be(0x0102_0304)), Address::from(plain));
        assert!(Address::from(plain).is_v4());
    }

    #[test]
    fn loopback_is_what_the_kernel_keeps_on_the_machine() {
        let cases = [
            ("127.0.0.1", true),
            ("127.255.255.254", true),
            ("0.0.0.0", true),
            ("::ffff:127.0.0.1", true),
            ("::1", true),
            ("::", true),
            ("128.0.0.1", false),
            ("126.255.255.255", false),
            ("0.0.0.1", false),
            ("::2", false),
            ("::127.0.0.1", false), // IPv4-compatible, not mapped: an ordinary IPv6 address
            ("1::", false),
            ("64:ff9b::7f00:1", false),
            ("fe80::1", false),
        ];
        for (text, loopback) in cases {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Address::from(ip).is_loopback(), loopback, "{text}");
        }
    }

    #[test]
    fn a_port_is_stored_in_network_order() {
        assert_eq!(Port::new(443).network().to_ne_bytes(), [0x01, 0xbb]);
        assert_eq!(Port::new(443).get(), 443);
        assert_eq!(Port::from_network(Port::new(53).network()), Port::DNS);
    }
}
