//! `server-timing`: how long each stage of a request took, for who sees the answer.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header::Entry};

/// Digits of the largest number of microseconds, and a point.
const LONGEST: usize = 21;

/// The header's name.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Puts the gateway's stages before what the pod told of its own.
pub fn tell(headers: &mut HeaderMap, stages: &[(&str, Duration)]) {
    let mut line = Vec::with_capacity(128);
    for (name, time) in stages {
        comma(&mut line);
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(b";dur=");
        milliseconds(&mut line, *time);
    }
    let place = headers.entry(SERVER_TIMING);
    if let Entry::Occupied(told) = &place {
        for told in told.iter() {
            comma(&mut line);
            line.extend_from_slice(told.as_bytes());
        }
    }
    let value =
        HeaderValue::try_from(line).expect("words, digits and what a header says already make a header");
    match place {
        Entry::Occupied(mut told) => _ = told.insert(value),
        Entry::Vacant(place) => _ = place.insert(value),
    }
}

/// By hand: each answer has some, and what `write!` takes is seen in what a request costs.
fn milliseconds(line: &mut Vec<u8>, time: Duration) {
    let mut us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let (mut digits, mut first) = ([b'0'; LONGEST], LONGEST);
    for place in 0..LONGEST {
        if us == 0 && place > 4 {
            break;
        }
        first -= 1;
        // Three of them stand behind the point.
        if place == 3 {
            digits[first] = b'.';
        } else {
            digits[first] = b'0' + (us % 10) as u8;
            us /= 10;
        }
    }
    line.extend_from_slice(&digits[first..]);
}

fn comma(line: &mut Vec<u8>) {
    if !line.is_empty() {
        line.extend_from_slice(b", ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_own_stages_come_after() {
        let mut headers = HeaderMap::new();
        headers.append(SERVER_TIMING, HeaderValue::from_static("tokenise;dur=0.2"));
        headers.append(SERVER_TIMING, HeaderValue::from_static("run;dur=3"));
        tell(&mut headers, &[("hold", Duration::from_micros(1500)), ("pod", Duration::from_millis(4))]);
        let told: Vec<_> = headers.get_all(SERVER_TIMING).iter().collect();
        assert_eq!(told, ["hold;dur=1.500, pod;dur=4.000, tokenise;dur=0.2, run;dur=3"]);
    }
}
