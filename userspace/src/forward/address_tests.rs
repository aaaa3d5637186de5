//! Truth tables for [`super`]: each network at both of its edges, and just outside.

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

#[test]
fn every_special_network_and_its_public_neighbours() {
    use Special as S;
    let metadata = |cloud| Some(S::Metadata(cloud));
    let table: &[(Option<Special>, &[&str])] = &[
        (Some(S::Unspecified), &["0.0.0.0", "0.0.0.1", "0.255.255.255", "::", "::ffff:0.0.0.0"]),
        (Some(S::Loopback), &["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1"]),
        (Some(S::Loopback), &["::ffff:127.0.0.1", "::ffff:7f00:2"]),
        (Some(S::Private), &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255"]),
        (Some(S::Private), &["192.168.0.0", "192.168.255.255", "::ffff:10.1.2.3"]),
        (Some(S::CarrierNat), &["100.64.0.0", "100.127.255.255", "100.100.100.199"]),
        (Some(S::LinkLocal), &["169.254.0.0", "169.254.255.255", "fe80::", "fe80::1"]),
        (Some(S::LinkLocal), &["febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "169.254.169.253"]),
        (Some(S::UniqueLocal), &["fc00::", "fd65:6772:6574::1:0", "fec0::1", "feff::1"]),
        (Some(S::UniqueLocal), &["fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fd00:ec2::253"]),
        (Some(S::Multicast), &["224.0.0.0", "239.255.255.255", "ff00::", "ff02::1"]),
        (Some(S::Broadcast), &["255.255.255.255"]),
        (Some(S::Documentation), &["192.0.2.0", "192.0.2.255", "198.51.100.7", "203.0.113.255"]),
        (Some(S::Documentation), &["2001:db8::", "2001:db8:ffff::1", "3fff::", "3fff:fff::1"]),
        (Some(S::Benchmarking), &["198.18.0.0", "198.19.255.255", "2001:2::", "2001:2:0:1::1"]),
        (Some(S::Reserved), &["192.0.0.0", "192.0.0.255", "240.0.0.0", "255.255.255.254"]),
        (Some(S::Reserved), &["2001:10::", "2001:2f::1", "2001:1ff::1", "100::1", "5f00::1"]),
        (
            Some(S::Reserved),
            &["1fff::1", "4000::", "::1:0:0:1", "::ffff:0:127.0.0.1", "64:ff9a::1"],
        ),
        (Some(S::Reserved), &["64:ff9b:0:1::1", "64:ff9b:2::1", "fe00::1"]),
        (Some(S::V4Compatible), &["::2", "::127.0.0.1", "::8.8.8.8"]),
        (Some(S::Nat64), &["64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::192.168.1.1"]),
        (Some(S::Nat64), &["64:ff9b::0.0.0.0", "64:ff9b::100.64.0.1", "64:ff9b::198.18.1.0"]),
        (Some(S::LocalNat64), &["64:ff9b:1::", "64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff::1"]),
        (Some(S::SixToFour), &["2002::", "2002:808:808::1", "192.88.99.1"]),
        (Some(S::Teredo), &["2001::", "2001:0:ffff::1"]),
        (metadata(Cloud::Common), &["169.254.169.254", "::ffff:169.254.169.254"]),
        (metadata(Cloud::Common), &["64:ff9b::169.254.169.254", "::169.254.169.254"]),
        (metadata(Cloud::Common), &["2002:a9fe:a9fe::1", "64:ff9b:1::169.254.169.254"]),
        (metadata(Cloud::Common), &["64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1::a9:fea9:fe00:0"]),
        (metadata(Cloud::Common), &["2001:0:a9fe:a9fe::1", "2001:0:1:1::5601:5601"]),
        (
            metadata(Cloud::Aws),
            &["169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23"],
        ),
        (metadata(Cloud::Azure), &["168.63.129.16", "64:ff9b::168.63.129.16"]),
        (metadata(Cloud::Alibaba), &["100.100.100.200"]),
        (metadata(Cloud::Oracle), &["192.0.0.192", "fd00:c1::a9fe:a9fe"]),
        (metadata(Cloud::Google), &["fd20:ce::254"]),
        (metadata(Cloud::OpenStack), &["fe80::a9fe:a9fe"]),
        (metadata(Cloud::Scaleway), &["169.254.42.42", "fd00:42::42"]),
        (metadata(Cloud::Tencent), &["169.254.0.23"]),
        (metadata(Cloud::Akamai), &["fd00:a9fe:a9fe::1"]),
        (None, &["1.0.0.0", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255"]),
        (None, &["100.128.0.0", "126.255.255.255", "128.0.0.0", "168.63.129.15"]),
        (None, &["169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0"]),
        (None, &["191.255.255.255", "192.0.1.0", "192.0.3.0", "192.88.98.1", "192.167.255.255"]),
        (None, &["192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.99.255", "203.0.114.0"]),
        (None, &["223.255.255.255", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "64:ff9b::1.1.1.1"]),
        (None, &["2000::", "2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:4700::1111"]),
        (None, &["2001:db7:ffff::1", "2001:db9::1", "3ffe::1", "3fff:1000::1"]),
    ];
    for (expected, addresses) in table {
        for text in *addresses {
            assert_eq!(special(ip(text)), *expected, "{text}");
        }
    }
}

#[test]
fn private_opens_what_it_names_and_nothing_else() {
    for (address, private, passes) in [
        ("8.8.8.8", &[][..], true),
        ("10.0.0.1", &[], false),
        ("10.0.0.1", &["10.0.0.0/8"], true),
        ("10.0.0.1", &["10.0.0.1/32"], true),
        ("10.0.0.1", &["10.0.0.2/32", "192.168.0.0/16", "::/0"], false),
        ("::ffff:10.0.0.1", &["10.0.0.0/8"], true),
        ("64:ff9b::10.0.0.1", &["10.0.0.0/8"], false),
        ("64:ff9b::10.0.0.1", &["64:ff9b::/96"], true),
        ("127.0.0.1", &["10.0.0.0/8"], false),
        ("127.0.0.1", &["0.0.0.0/0"], true),
        ("::1", &["0.0.0.0/0"], false),
        ("::1", &["::1/128"], true),
        ("fd00::1", &["fc00::/7"], true),
        ("100.64.0.1", &["100.64.0.0/10"], true),
        ("198.18.1.0", &["10.0.0.0/8"], false),
    ] {
        assert_eq!(check(ip(address), &nets(private)).is_ok(), passes, "{address} {private:?}");
    }
}

#[test]
fn a_metadata_service_is_opened_only_by_its_own_address() {
    for (address, around, exact) in [
        ("169.254.169.254", "169.254.0.0/16", "169.254.169.254/32"),
        ("169.254.169.254", "169.254.169.254/31", "169.254.169.254/32"),
        ("::ffff:169.254.169.254", "0.0.0.0/0", "169.254.169.254/32"),
        ("168.63.129.16", "168.63.129.0/24", "168.63.129.16/32"),
        ("100.100.100.200", "100.64.0.0/10", "100.100.100.200/32"),
        ("192.0.0.192", "192.0.0.0/24", "192.0.0.192/32"),
        ("fd00:ec2::254", "fd00::/8", "fd00:ec2::254/128"),
        ("64:ff9b::a9fe:a9fe", "64:ff9b::/96", "64:ff9b::a9fe:a9fe/128"),
        ("64:ff9b:1::a9fe:a9fe", "64:ff9b:1::/48", "64:ff9b:1::a9fe:a9fe/128"),
    ] {
        let ip = ip(address);
        assert!(matches!(check(ip, &[]), Err(Special::Metadata(_))), "{address}");
        assert!(matches!(check(ip, &nets(&[around])), Err(Special::Metadata(_))), "{address}");
        assert_eq!(check(ip, &nets(&[exact])), Ok(()), "{address}: control");
    }
    let neighbour = check(ip("169.254.169.253"), &nets(&["169.254.0.0/16"]));
    assert_eq!(neighbour, Ok(()), "control: the network does open the rest of it");
}

proptest::proptest! {
    /// Whatever the way an address is written in, a mapped one gets the verdict of its IPv4 form.
    #[test]
    fn mapped_is_v4(bits: u32) {
        let v4 = Ipv4Addr::from(bits);
        assert_eq!(special(v4.into()), special(v4.to_ipv6_mapped().into()));
        let nat64 = special(format!("64:ff9b::{v4}").parse().unwrap());
        assert_eq!(special(v4.into()).is_some(), nat64.is_some());
    }
}
