//! Which addresses may be dialled: special-use ranges are refused unless the
//! operator allows them, so that a fetch service is no way into a network.
//!
//! Not for: names and URLs; only addresses count, as names can lie.
//! Called by: `connector`, on every dial.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Address ranges of the operator, over the special-use default.
#[derive(Debug, Clone, Default)]
pub(super) struct AddressPolicy {
    deny: Vec<IpNet>,
    allow: Vec<IpNet>,
}

impl AddressPolicy {
    pub(super) fn new(deny: Vec<IpNet>, allow: Vec<IpNet>) -> Self {
        Self { deny, allow }
    }

    /// The reason why `address` may not be dialled, if there is one. An
    /// address that carries another one inside is judged by both.
    pub(super) fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        let outer = address.to_canonical();
        let forms = [Some(outer), embedded(outer).map(IpAddr::V4)];
        let in_list = |list: &[IpNet]| {
            let mut forms = forms.iter().flatten();
            forms.any(|form| list.iter().any(|net| net.contains(form)))
        };
        if in_list(&self.deny) {
            return Some("an address denied by the configuration");
        }
        if in_list(&self.allow) {
            return None;
        }
        forms.into_iter().flatten().find_map(special_use)
    }
}

type V4Range = ([u8; 4], u8, &'static str);

/// IANA IPv4 Special-Purpose Address Registry without what is globally
/// reachable, and the metadata address of Azure, which looks public.
const V4: [V4Range; 18] = [
    ([0, 0, 0, 0], 8, "an unspecified address"),
    ([10, 0, 0, 0], 8, "a private address"),
    ([100, 64, 0, 0], 10, "a carrier-grade NAT address"),
    ([127, 0, 0, 0], 8, "a loopback address"),
    ([168, 63, 129, 16], 32, "a cloud metadata address"),
    ([169, 254, 169, 254], 32, "a cloud metadata address"),
    ([169, 254, 0, 0], 16, "a link-local address"),
    ([172, 16, 0, 0], 12, "a private address"),
    ([192, 0, 0, 0], 24, "a protocol assignment address"),
    ([192, 0, 2, 0], 24, "a documentation address"),
    ([192, 88, 99, 0], 24, "a 6to4 relay address"),
    ([192, 168, 0, 0], 16, "a private address"),
    ([198, 18, 0, 0], 15, "a benchmarking address"),
    ([198, 51, 100, 0], 24, "a documentation address"),
    ([203, 0, 113, 0], 24, "a documentation address"),
    ([224, 0, 0, 0], 4, "a multicast address"),
    ([255, 255, 255, 255], 32, "the broadcast address"),
    ([240, 0, 0, 0], 4, "a reserved address"),
];

type V6Range = ([u16; 8], u8, &'static str);

/// The same for IPv6. What is outside of 2000::/3 and not named here is
/// refused by [`special_use`].
const V6: [V6Range; 14] = [
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, "an unspecified address"),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, "a loopback address"),
    ([0, 0, 0, 0, 0, 0, 0, 0], 96, "an IPv4-compatible address"),
    (
        [0x64, 0xff9b, 1, 0, 0, 0, 0, 0],
        48,
        "a local NAT64 address",
    ),
    ([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "a discard-only address"),
    (
        [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0],
        32,
        "a documentation address",
    ),
    (
        [0x2001, 0, 0, 0, 0, 0, 0, 0],
        23,
        "a protocol assignment address",
    ),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "a documentation address"),
    (
        [0x5f00, 0, 0, 0, 0, 0, 0, 0],
        16,
        "a segment routing address",
    ),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "a unique local address"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "a link-local address"),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "a site-local address"),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "a multicast address"),
    ([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, "an overlay address"),
];

/// NAT64 (RFC 6052), whose addresses are as good as the IPv4 ones inside.
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

fn special_use(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => {
            let bits = u32::from(v4);
            let hit = V4.iter().find(|(net, prefix, _)| {
                let shift = 32 - u32::from(*prefix);
                (bits ^ u32::from(Ipv4Addr::from(*net))) >> shift == 0
            });
            hit.map(|(_, _, name)| *name)
        }
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            let hit = V6.iter().find(|(net, prefix, _)| {
                let shift = 128 - u32::from(*prefix);
                (bits ^ u128::from(Ipv6Addr::from(*net))) >> shift == 0
            });
            let global = bits >> 125 == 1 || v6.segments()[..6] == NAT64;
            hit.map(|(_, _, name)| *name)
                .or((!global).then_some("not a global unicast address"))
        }
    }
}

/// The IPv4 address a translating or tunnelling IPv6 address leads to.
/// (Mapped ones are canonicalised before.)
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else {
        return None;
    };
    let s = v6.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    if s[..6] == NAT64 || (s[..6] == [0; 6] && (s[6], s[7]) > (0, 1)) {
        Some(join(s[6], s[7]))
    } else if s[0] == 0x2002 {
        Some(join(s[1], s[2]))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(policy: &AddressPolicy, address: &str) -> bool {
        policy.refusal(address.parse().unwrap()).is_some()
    }

    const REFUSED: &[&str] = &[
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.255",
        "168.63.129.16",
        "169.254.0.0",
        "169.254.169.254",
        "169.254.255.255",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.0",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.0",
        "192.168.255.255",
        "198.18.0.0",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::2",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:7f00:1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "100::1",
        "100:0:0:1::1",
        "2001::1",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2002:c0a8:101::1",
        "3fff::1",
        "3fff:fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fdff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "4000::1",
        "8000::1",
        "400::1",
    ];

    #[test]
    fn every_special_use_range_is_refused_at_both_ends() {
        let default = AddressPolicy::default();
        for address in REFUSED {
            assert!(refused(&default, address), "{address}");
        }
    }

    const PUBLIC: &[&str] = &[
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2001:4860:4860::8888",
        "2001:200::1",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "::ffff:8.8.8.8",
    ];

    #[test]
    fn public_addresses_beside_the_ranges_are_not() {
        let default = AddressPolicy::default();
        for address in PUBLIC {
            assert!(!refused(&default, address), "{address}");
        }
    }

    #[test]
    fn deny_beats_allow_beats_the_default_in_every_form() {
        let nets = |list: &[&str]| list.iter().map(|n| n.parse().unwrap()).collect();
        let policy = AddressPolicy::new(
            nets(&["10.1.0.0/16", "8.8.8.0/24", "2606::/16"]),
            nets(&["10.0.0.0/8", "::1/128"]),
        );
        for allowed in [
            "10.0.0.1",
            "::ffff:10.2.0.1",
            "64:ff9b::10.2.0.1",
            "::1",
            "1.1.1.1",
        ] {
            assert!(!refused(&policy, allowed), "{allowed}");
        }
        for denied in [
            "10.1.0.1",
            "::ffff:10.1.0.1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::",
            "2606:4700::1",
            "127.0.0.1",
            "192.168.0.1",
        ] {
            assert!(refused(&policy, denied), "{denied}");
        }
    }
}
