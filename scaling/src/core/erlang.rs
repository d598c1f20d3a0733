//! How likely it is to wait.

/// The probability that a request finds all of `servers` busy, if `load` of them are busy on average (Erlang's C formula).
pub fn c(servers: u32, load: f64) -> f64 {
    let count = f64::from(servers);
    if load >= count {
        return 1.;
    }
    // Erlang's B by its recursion, which neither overflows nor loses digits: B(0) = 1, B(n) = aB / (n + aB).
    let blocked = (1..=servers).fold(1., |blocked, n| load * blocked / (f64::from(n) + load * blocked));
    count * blocked / (count - load * (1. - blocked))
}

/// The probability that a request waits longer than `slack` seconds before one of `servers` begins with it, if it is served in
/// `service` seconds on average, with `variation` as the squared coefficient of variation. Exact for a variation of 1; else as
/// Allen and Cunneen approximate it.
pub fn late(servers: u32, load: f64, service: f64, variation: f64, slack: f64) -> f64 {
    let spare = f64::from(servers) - load;
    if spare <= 0. {
        return 1.;
    }
    c(servers, load) * (-spare / service * slack * 2. / (1. + variation)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_is_busy_as_often_as_it_has_work() {
        for load in [0., 0.1, 0.5, 0.99] {
            assert!((c(1, load) - load).abs() < 1e-12);
        }
        assert_eq!(c(1, 1.), 1.);
    }

    /// From tables: 5 servers with a load of 4, 10 with 8, 100 with 90.
    #[test]
    fn tables_agree() {
        for (servers, load, expected) in [(5, 4., 0.5541), (10, 8., 0.4092), (100, 90., 0.2169)] {
            assert!((c(servers, load) - expected).abs() < 1e-3, "{servers} {load}: {}", c(servers, load));
        }
    }

    #[test]
    fn more_servers_and_more_slack_make_it_less_likely() {
        let at = |servers, slack| late(servers, 3., 0.01, 1., slack);
        assert!(at(4, 0.01) > at(5, 0.01) && at(4, 0.01) > at(4, 0.02));
        assert_eq!(at(3, 10.), 1.);
    }
}
