//! `server-timing`: how long each stage of a request took, for who sees the answer.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Digits of the largest number of microseconds, and a point.
const LONGEST: usize = 21;

/// The header's name.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Puts the gateway's stages before what the pod told of its own.
pub fn tell(headers: &mut HeaderMap, stages: &[(&str, Duration)]) {
    let mut line = String::with_capacity(128);
    let told = headers.get_all(&SERVER_TIMING).iter().filter_map(|value| value.to_str().ok());
    for (name, time) in stages {
        comma(&mut line);
        line.push_str(name);
        line.push_str(";dur=");
        milliseconds(&mut line, *time);
    }
    for told in told {
        comma(&mut line);
        line.push_str(told);
    }
    if let Ok(value) = HeaderValue::try_from(line) {
        headers.insert(SERVER_TIMING, value);
    }
}

/// By hand: each answer has some, and what `write!` takes is seen in what a request costs.
fn milliseconds(line: &mut String, time: Duration) {
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
    line.extend(digits[first..].iter().map(|digit| char::from(*digit)));
}

fn comma(line: &mut String) {
    if !line.is_empty() {
        line.push_str(", ");
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
