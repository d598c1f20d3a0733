//! Which gateway keeps the one queue of a service.
//!
//! Each gateway ranks all ready ones by a hash of the service's name and theirs, and so all come to the same order without
//! asking each other. When a gateway goes, its services go to those that were second, and nothing else moves; when one
//! comes, it takes about an even part from each.

use std::cmp::Reverse;

use super::name::ServiceName;

/// The gateways in the order in which they own this service: the owner first, then who takes over when it is gone. Names of
/// gateways that are given twice come once.
pub fn ranked<'a>(service: &ServiceName, gateways: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ranked: Vec<_> =
        gateways.into_iter().map(|gateway| (Reverse(weight(service, gateway)), gateway)).collect();
    ranked.sort_unstable();
    ranked.dedup();
    ranked.into_iter().map(|(_, gateway)| gateway).collect()
}

/// The first of [`ranked`]; `None` if there is no gateway.
pub fn owner<'a>(service: &ServiceName, gateways: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Of equal weights the smaller name, as in `ranked`.
    gateways.into_iter().max_by_key(|gateway| (weight(service, gateway), Reverse(*gateway)))
}

/// The same in each process, on each machine, in each release: gateways of two releases agree while one replaces the other.
fn weight(service: &ServiceName, gateway: &str) -> u64 {
    // No name holds a slash or a zero byte, so that no two triples are the same text.
    let text = [service.namespace(), "/", service.name(), "\0", gateway];
    mixed(text.into_iter().flat_map(str::bytes).fold(FNV_OFFSET, fnv_1a))
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

fn fnv_1a(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
}

/// Names of pods differ in their last letters, which FNV alone hardly spreads to its upper bits (the end of splitmix64).
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const GATEWAYS: [&str; 4] = [
        "kembed-gateway-6d5f-2xkqp",
        "kembed-gateway-6d5f-7hb9z",
        "kembed-gateway-6d5f-c4wmt",
        "kembed-gateway-6d5f-zz8rk",
    ];

    fn service(number: usize) -> ServiceName {
        ServiceName::new("team", &format!("service-{number}")).expect("two labels")
    }

    #[test]
    fn the_order_never_changes_between_releases() {
        assert_eq!(format!("{:016x}", weight(&service(1), GATEWAYS[0])), "04876a6bd9342077");
        assert_eq!(ranked(&service(1), GATEWAYS), [GATEWAYS[2], GATEWAYS[1], GATEWAYS[3], GATEWAYS[0]]);
    }

    #[test]
    fn each_gateway_owns_an_even_part() {
        let mut owned = BTreeMap::<_, usize>::new();
        for number in 0..4000 {
            *owned.entry(owner(&service(number), GATEWAYS).expect("there are gateways")).or_default() += 1;
        }
        assert!(owned.len() == 4 && owned.values().all(|count| (900..1100).contains(count)), "{owned:?}");
    }

    proptest! {
        #[test]
        fn all_agree_and_only_what_was_owned_moves(number in 0usize..10_000, gone in 0usize..4) {
            let service = service(number);
            let order = ranked(&service, GATEWAYS);
            prop_assert_eq!(owner(&service, GATEWAYS), order.first().copied());
            prop_assert_eq!(&ranked(&service, GATEWAYS.into_iter().rev().chain(GATEWAYS)), &order, "in any order, each once");
            let left: Vec<_> = GATEWAYS.into_iter().filter(|gateway| *gateway != GATEWAYS[gone]).collect();
            let without: Vec<_> = order.into_iter().filter(|gateway| *gateway != GATEWAYS[gone]).collect();
            prop_assert_eq!(ranked(&service, left), without, "the others keep their order");
        }
    }

    #[test]
    fn without_gateways_nobody_owns() {
        assert_eq!(owner(&service(1), []), None);
        assert_eq!(ranked(&service(1), []), [""; 0]);
    }
}
