//! What of a head belongs to its connection: headers that must not be passed on to the next, and memory.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
    request,
    uri::PathAndQuery,
};

use super::hop::MOVED_HEADER;

/// Headers of one connection (RFC 9110, section 7.6.1), besides those that `Connection` names. As texts, which a glance at
/// their lengths tells from most others.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    // This side has already told the client to go on.
    "expect",
    // Of a gateway to the one that forwarded: no pod speaks for it.
    MOVED_HEADER,
];

/// What all headers begin with that kembed has made up, but for [`SHOULD_RETRY`](super::names::SHOULD_RETRY).
const OWN: &str = "x-kembed-";

/// Leaves what is meant for the far end of a request or an answer.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most heads have none, and one look at all names costs less than to look each of these up.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(&name.as_str())) {
        return;
    }
    // Of two lengths the body may follow either; what is passed on has one.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().map(HeaderName::as_str).chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Whether there is a header that means something to kembed alone. Most clients send none.
pub fn has_own(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(OWN))
}

/// Has a head and its target share no memory with what else was read from its connection, which is kept as long as any of it
/// is in use: 8 KiB and more.
pub fn own_memory(head: &mut request::Parts, target: &mut PathAndQuery) {
    for value in head.headers.values_mut() {
        let is_sensitive = value.is_sensitive();
        if let Ok(own) = HeaderValue::from_bytes(value.as_bytes()) {
            *value = own;
            value.set_sensitive(is_sensitive);
        }
    }
    if let Ok(own) = target.as_str().parse() {
        *target = own;
    }
    if let Ok(own) = head.uri.to_string().parse() {
        head.uri = own;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Request, Uri};

    use super::*;

    fn stripped(headers: &[(&str, &str)]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        strip_hop_by_hop(&mut map);
        map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect()
    }

    #[test]
    fn what_is_meant_for_the_far_end_stays() {
        let kept = [
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", "x=y"),
            ("authorization", "Bearer key"),
            ("content-length", "5"),
            ("accept-encoding", "gzip"),
            ("x-forwarded-for", "10.0.0.1"),
            ("trailer", "x-sum"),
        ];
        assert_eq!(stripped(&kept), kept.map(|(name, value)| format!("{name}: {value}")));
    }

    #[test]
    fn what_belongs_to_the_connection_goes() {
        let hop = [
            ("connection", "close, X-Mine"),
            ("connection", "x-yours"),
            ("x-mine", "1"),
            ("x-yours", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("proxy-connection", "keep-alive"),
            ("expect", "100-continue"),
            ("x-kembed-moved", "*"),
        ];
        assert_eq!(stripped(&hop), Vec::<String>::new());
    }

    #[test]
    fn a_head_of_its_own_memory_says_the_same() {
        let read = Bytes::from_static(b"http://team.svc/embed?x=%20yvalue");
        let uri = Uri::from_maybe_shared(read.slice(..28)).expect("a URL");
        let mut target = uri.path_and_query().expect("a path").clone();
        let mut value = HeaderValue::from_maybe_shared(read.slice(28..)).expect("a value");
        value.set_sensitive(true);
        let request = Request::post(uri).header("x-mine", value).header("x-mine", "2");
        let (mut head, ()) = request.body(()).expect("a request").into_parts();
        let before = head.clone();
        own_memory(&mut head, &mut target);
        assert_eq!((&head.uri, &head.headers), (&before.uri, &before.headers));
        assert_eq!(target, "/embed?x=%20y");
        assert!(head.headers["x-mine"].is_sensitive());
        drop(before);
        let range = read.as_ptr_range();
        let shared =
            [head.headers["x-mine"].as_bytes(), head.uri.path().as_bytes(), target.as_str().as_bytes()];
        assert!(shared.iter().all(|text| !range.contains(&text.as_ptr())));
    }

    /// Two lengths are how requests are smuggled past a proxy.
    #[test]
    fn of_two_lengths_neither_is_passed_on() {
        assert_eq!(
            stripped(&[("content-length", "5"), ("transfer-encoding", "chunked")]),
            Vec::<String>::new()
        );
    }
}
