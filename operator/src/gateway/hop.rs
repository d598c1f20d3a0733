//! What one gateway tells another beside a request that it forwards, and what it is told.
//!
//! The client's headers go along as they are, its key among them: the owner alone decides who may use a service.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri, Version,
    header::HOST,
    request,
    uri::{Authority, PathAndQuery, Scheme},
};
use kembed_queue::{History, Past};

use super::{
    headers::{has_own, strip_hop_by_hop},
    name::ServiceName,
    names,
};

/// Of a forwarded request: `<namespace>/<name>` of its service.
pub const FORWARDED_HEADER: &str = "x-kembed-forwarded";

/// Of a forwarded request: microseconds that it has waited at other gateways, which it need not wait again.
pub const WAITED_HEADER: &str = "x-kembed-waited-us";

/// Of a forwarded request that a gateway has let in before, and of the answer with which that one gave it back: a
/// [`History`]. It is not counted as arrived again, and if its pod died it is suspect wherever it comes.
pub const HISTORY_HEADER: &str = "x-kembed-history";

/// Of an answer to one: take it elsewhere, to the gateway of this name, or if that is [`ANOTHER`], to any other.
pub const MOVED_HEADER: &str = "x-kembed-moved";

/// Of an answer to one: this gateway is about to end. Its pod's readiness tells the same some seconds later.
pub const ENDING_HEADER: &str = "x-kembed-ending";

/// In place of a name.
pub const ANOTHER: &str = "*";

/// In place of a host that makes no URL. The owner does not look at it.
const NO_HOST: &str = "gateway";

/// What the owner needs to know of a request and cannot see of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The service that it is for.
    pub service: ServiceName,
    /// What it went through already.
    pub past: Past,
}

/// The head of a request as the owner gets it; `left` is what remains of the client's deadline.
pub fn outward(
    head: &request::Parts,
    target: &PathAndQuery,
    hop: &Hop,
    left: Option<Duration>,
) -> request::Parts {
    let mut head = head.clone();
    strip_hop_by_hop(&mut head.headers);
    strip(&mut head.headers);
    let asked = head.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    if let Some(Ok(host)) = asked {
        head.headers.insert(HOST, host);
    }
    let forwarded = HeaderValue::try_from(hop.service.to_string()).expect("names are of letters and digits");
    head.headers.insert(&names::FORWARDED, forwarded);
    if let Some(waited) = microseconds(hop.past.waited) {
        head.headers.insert(&names::WAITED, waited);
    }
    if let Some(history) = hop.past.history {
        head.headers.insert(&names::HISTORY, value(history));
    }
    if let Some(left) = left {
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        head.headers.insert(&names::DEADLINE, HeaderValue::from(left));
    }
    head.uri = url(&head.headers, target);
    head.version = Version::HTTP_2;
    head
}

/// Reads and takes off what another gateway has put on; `None` if this is no forwarded request.
pub fn inward(head: &mut request::Parts) -> Option<Hop> {
    let text = |name: &HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let service = text(&names::FORWARDED)?.parse().ok()?;
    let waited = text(&names::WAITED).and_then(|us| us.parse().ok()).unwrap_or(0);
    let past = Past { waited: Duration::from_micros(waited), history: history(&head.headers) };
    strip(&mut head.headers);
    // Its host is the header, whatever the URL says.
    head.uri = Uri::from(head.uri.path_and_query().cloned()?);
    Some(Hop { service, past })
}

/// Takes off what only gateways write.
pub fn strip(headers: &mut HeaderMap) {
    if has_own(headers) {
        [&names::FORWARDED, &names::WAITED, &names::HISTORY]
            .into_iter()
            .for_each(|name| drop(headers.remove(name)));
    }
}

/// Whether an answer says that the request is to be taken elsewhere, and to which gateway.
pub fn moved(headers: &HeaderMap) -> Option<Option<String>> {
    let to = headers.get(&names::MOVED)?.to_str().ok().filter(|to| *to != ANOTHER);
    Some(to.map(str::to_owned))
}

/// What a request went through at the gateway that gives it back, if that had let it in.
pub fn history(headers: &HeaderMap) -> Option<History> {
    History::parse(headers.get(&names::HISTORY)?.to_str().ok()?)
}

/// As a header.
pub fn value(history: History) -> HeaderValue {
    HeaderValue::try_from(history.to_string()).expect("words and digits")
}

/// Says that this gateway is about to end, or that nobody else did.
pub fn tell_ending(headers: &mut HeaderMap, is_ending: bool) {
    // No pod speaks for a gateway.
    headers.remove(&names::ENDING);
    if is_ending {
        headers.insert(&names::ENDING, HeaderValue::from_static("true"));
    }
}

/// Reads and takes off what [`tell_ending`] has put on.
pub fn is_ending(headers: &mut HeaderMap) -> bool {
    headers.remove(&names::ENDING).is_some()
}

fn microseconds(time: Duration) -> Option<HeaderValue> {
    u64::try_from(time.as_micros()).ok().filter(|us| *us > 0).map(HeaderValue::from)
}

fn url(headers: &HeaderMap, target: &PathAndQuery) -> Uri {
    let host: Option<Authority> = headers.get(HOST).and_then(|host| host.as_bytes().try_into().ok());
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(host.unwrap_or_else(|| Authority::from_static(NO_HOST)));
    parts.path_and_query = Some(target.clone());
    Uri::from_parts(parts).expect("scheme, authority and path are a URL")
}

#[cfg(test)]
mod tests {
    use http::Request;
    use kembed_queue::wire::DEADLINE_HEADER;
    use proptest::prelude::*;

    use super::*;

    fn hop(waited: u64) -> Hop {
        let past = Past { waited: Duration::from_micros(waited), history: None };
        Hop { service: ServiceName::new("team", "minilm").expect("two labels"), past }
    }

    fn head(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("the test's own request").into_parts().0
    }

    fn through(head: &request::Parts, hop: &Hop, left: Option<Duration>) -> (request::Parts, Option<Hop>) {
        let target = PathAndQuery::from_static("/v1/embeddings?x=1");
        let mut head = outward(head, &target, hop, left);
        let read = inward(&mut head);
        (head, read)
    }

    #[test]
    fn the_clients_headers_pass_and_its_connection_does_not() {
        let sent = [
            ("host", "minilm.team"),
            ("authorization", "Bearer key"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("x-kembed-lane", "bulk"),
        ];
        let own = [("connection", "close, x-mine"), ("x-mine", "1"), ("te", "trailers")];
        let (head, read) =
            through(&head("/team/minilm/v1/embeddings", &[&sent[..], &own].concat()), &hop(5), None);
        let kept: Vec<_> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(kept, sent.map(|(name, value)| (name, value.as_bytes())));
        assert_eq!((head.uri.to_string().as_str(), read), ("/v1/embeddings?x=1", Some(hop(5))));
    }

    #[test]
    fn the_host_is_the_one_that_was_asked_for() {
        for (uri, host, kept) in [
            ("http://minilm.team/x", None, Some("minilm.team")),
            ("/x", Some("minilm.team:80"), Some("minilm.team:80")),
            ("/x", Some("no host"), Some("no host")),
            ("/x", None, None),
        ] {
            let headers: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
            let (head, _) = through(&head(uri, &headers), &hop(0), None);
            assert_eq!(
                head.headers.get("host").map(|host| host.as_bytes()),
                kept.map(str::as_bytes),
                "{uri}"
            );
            assert_eq!(head.uri.authority(), None);
        }
    }

    #[test]
    fn what_a_client_writes_as_a_gateway_does_goes() {
        let forged = [
            ("x-kembed-forwarded", "other/service"),
            ("x-kembed-waited-us", "99"),
            ("x-kembed-history", "errors=0, suspect"),
        ];
        assert_eq!(through(&head("/x", &forged), &hop(0), None).1, Some(hop(0)));
        let mut headers = head("/x", &forged).headers;
        strip(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn what_it_went_through_goes_along() {
        for history in ["errors=0", "errors=2, suspect"].map(History::parse) {
            let hop = Hop { past: Past { history, ..hop(7).past }, ..hop(7) };
            assert_eq!(through(&head("/x", &[]), &hop, None).1, Some(hop));
        }
    }

    #[test]
    fn a_deadline_is_what_is_left_of_it() {
        let left = |left| {
            let (head, _) = through(&head("/x", &[("x-kembed-deadline-ms", "9")]), &hop(0), left);
            head.headers[DEADLINE_HEADER].to_str().expect("digits").to_owned()
        };
        assert_eq!(left(Some(Duration::from_millis(4))), "4");
        assert_eq!(left(Some(Duration::ZERO)), "1");
        assert_eq!(left(None), "9", "what was not read is the owner's to read");
    }

    #[test]
    fn an_answer_says_where_its_request_is_to_go() {
        let told = |value: Option<&'static str>| {
            let header =
                value.map(|value| (MOVED_HEADER.parse().expect("a name"), HeaderValue::from_static(value)));
            moved(&header.into_iter().collect())
        };
        assert_eq!(told(None), None);
        assert_eq!(told(Some("*")), Some(None));
        assert_eq!(told(Some("gateway-2")), Some(Some("gateway-2".to_owned())));
    }

    #[test]
    fn a_gateway_says_itself_that_it_ends() {
        let mut headers = HeaderMap::new();
        headers.insert(ENDING_HEADER, HeaderValue::from_static("a pod says so"));
        tell_ending(&mut headers, false);
        assert!(!is_ending(&mut headers));
        tell_ending(&mut headers, true);
        assert!(is_ending(&mut headers) && headers.is_empty());
    }

    proptest! {
        #[test]
        fn anything_is_read_or_left(
            forwarded in any::<Vec<u8>>(),
            waited in any::<Vec<u8>>(),
            history in any::<Vec<u8>>(),
        ) {
            let mut head = head("/x", &[]);
            for (name, value) in
                [(FORWARDED_HEADER, forwarded), (WAITED_HEADER, waited), (HISTORY_HEADER, history)]
            {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    head.headers.insert(name, value);
                }
            }
            let _ = inward(&mut head);
        }
    }
}
