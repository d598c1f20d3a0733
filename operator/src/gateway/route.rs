//! Which service a request is for, told from its address.

use http::{
    HeaderMap, Method, Uri,
    header::HOST,
    uri::{Authority, PathAndQuery},
};

use super::{name::ServiceName, refusal::Refusal};

/// The list of services, on the gateway's own address.
const MODELS_PATH: &str = "/v1/models";

/// The endpoint that is most asked for by `model`.
const EMBEDDINGS_PATH: &str = "/v1/embeddings";

/// First segments of paths that never name a namespace: else whoever may create a namespace `v1` and in it a service
/// `embeddings` would get every request that is routed by its `model`.
const RESERVED: [&str; 1] = ["v1"];

/// What the address of a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<S> {
    /// It is for this service, whatever the body says.
    Service {
        /// An existing service.
        name: ServiceName,
        /// What was found under its name.
        service: S,
        /// Where its name stood.
        by: By,
        /// What to ask its pod for.
        target: PathAndQuery,
    },
    /// The `model` in the JSON body says which service it is for.
    Model {
        /// What to ask the service's pod for.
        target: PathAndQuery,
    },
    /// The gateway itself answers, with the list of services.
    List,
}

/// Where in the address the name of a service stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// In the host name.
    Host,
    /// In the first two segments of the path.
    Path,
}

/// Finds the service that a request is for: by host name, else by path, else by the body's `model`.
///
/// # Errors
/// If the address belongs to nothing; `find` tells which services there are.
pub fn route<S>(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    find: impl Fn(&ServiceName) -> Option<S>,
) -> Result<Route<S>, Refusal> {
    let authority = authority(uri, headers)?;
    // CONNECT has no path, and `OPTIONS *` speaks of the whole server.
    let target = uri.path_and_query().filter(|target| target.path().starts_with('/'));
    let target = target.ok_or(Refusal::UnknownUrl { asked: None })?;

    let by_host = authority.as_ref().and_then(|authority| service_of_host(authority.host()));
    if let Some((name, service)) = by_host.and_then(|name| find(&name).map(|service| (name, service))) {
        return Ok(Route::Service { name, service, by: By::Host, target: target.clone() });
    }
    let Some((name, rest)) = service_of_path(target) else { return own(method, target, None) };
    match find(&name) {
        Some(service) => Ok(Route::Service { name, service, by: By::Path, target: rest }),
        None => own(method, target, Some(name)),
    }
}

/// The routes of the gateway's own address, of which no part names a service.
fn own<S>(method: &Method, target: &PathAndQuery, asked: Option<ServiceName>) -> Result<Route<S>, Refusal> {
    match (target.path(), method) {
        (MODELS_PATH, &Method::GET | &Method::HEAD) => Ok(Route::List),
        (MODELS_PATH, _) => Err(Refusal::MethodNotAllowed { allow: "GET, HEAD" }),
        (path, &Method::POST) if path.starts_with("/v1/") => Ok(Route::Model { target: target.clone() }),
        (EMBEDDINGS_PATH, _) => Err(Refusal::MethodNotAllowed { allow: "POST" }),
        _ => Err(Refusal::UnknownUrl { asked }),
    }
}

/// The host that a request is meant for. As RFC 9112 demands, that of the request line (or of `:authority`) wins over
/// the header, and two headers are refused. A value that is no host names no service, which is all that matters.
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::TwoHosts);
    }
    let of_header = || host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    Ok(uri.authority().cloned().or_else(of_header))
}

/// `<name>.<namespace>[.svc[.domain]]`.
fn service_of_host(host: &str) -> Option<ServiceName> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return service_of_host(&host.to_ascii_lowercase());
    }
    let mut labels = host.split('.');
    let (name, namespace, third) = (labels.next()?, labels.next()?, labels.next());
    if third.is_some_and(|label| label != "svc") {
        return None;
    }
    ServiceName::new(namespace, name)
}

/// `/<namespace>/<name>`, and what stands after it.
fn service_of_path(target: &PathAndQuery) -> Option<(ServiceName, PathAndQuery)> {
    let path = target.path();
    let mut segments = path.strip_prefix('/')?.splitn(3, '/');
    let (namespace, name) = (segments.next()?, segments.next()?);
    // A proxy on the way may have read `/a/b/../../c/d` as another service than this function would.
    if RESERVED.contains(&namespace) || path.split('/').any(is_dot_segment) {
        return None;
    }
    let rest = segments.next().unwrap_or_default();
    let rest = match target.query() {
        Some(query) => format!("/{rest}?{query}"),
        None => format!("/{rest}"),
    };
    Some((ServiceName::new(namespace, name)?, PathAndQuery::try_from(rest).ok()?))
}

/// `.` or `..`, also where percent-encoded.
fn is_dot_segment(segment: &str) -> bool {
    segment.len() <= "%2e%2e".len()
        && matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// The services of these tests.
    const SERVICES: [&str; 3] = ["team/minilm", "team/e5", "v1/embeddings"];

    fn routed(method: Method, host: &str, uri: &str) -> Result<Route<()>, Refusal> {
        let mut headers = HeaderMap::new();
        if let Ok(host) = HeaderValue::try_from(host) {
            headers.insert(HOST, host);
        }
        let uri = Uri::try_from(uri).expect("the test's own address");
        route(&method, &uri, &headers, |name| SERVICES.contains(&name.as_str()).then_some(()))
    }

    /// How it is routed, as a short text.
    fn told(method: Method, host: &str, uri: &str) -> String {
        match routed(method, host, uri) {
            Ok(Route::Service { name, by, target, .. }) => format!("{by:?} {name} {target}"),
            Ok(Route::Model { target }) => format!("Model {target}"),
            Ok(Route::List) => "List".to_owned(),
            Err(refusal) => format!("{refusal:?}"),
        }
    }

    #[test]
    fn by_host() {
        for host in [
            "minilm.team",
            "minilm.team.svc",
            "minilm.team.svc.cluster.local",
            "minilm.team.svc.cluster.local.",
            "minilm.team.",
            "minilm.team.svc:80",
            "MiniLM.Team.SVC",
        ] {
            assert_eq!(
                told(Method::POST, host, "/v1/embeddings?x=1"),
                "Host team/minilm /v1/embeddings?x=1",
                "{host}"
            );
        }
    }

    #[test]
    fn other_hosts_fall_through_to_the_path() {
        for host in [
            "minilm",
            "gateway.kembed",
            "minilm.team.example.com",
            "api.example.com",
            "minilm.other.svc",
            "minilm..svc",
            ".team",
            "10.0.0.1:8080",
            "[::1]:8080",
            "[fd00::7]",
            "",
            "not a host",
            "minilm.team..",
        ] {
            assert_eq!(told(Method::GET, host, "/team/e5/info"), "Path team/e5 /info", "{host:?}");
            assert_eq!(told(Method::POST, host, "/v1/embeddings"), "Model /v1/embeddings", "{host:?}");
        }
    }

    #[test]
    fn by_path() {
        for (path, target) in [
            ("/team/minilm", "/"),
            ("/team/minilm/", "/"),
            ("/team/minilm?content=a%20b", "/?content=a%20b"),
            ("/team/minilm/?content=", "/?content="),
            ("/team/minilm/v1/embeddings", "/v1/embeddings"),
            ("/team/minilm//v1/embeddings", "//v1/embeddings"),
            ("/team/minilm/a%2Fb?c=/../d", "/a%2Fb?c=/../d"),
            ("/team/minilm/.../x", "/.../x"),
        ] {
            assert_eq!(told(Method::GET, "gateway", path), format!("Path team/minilm {target}"), "{path}");
        }
    }

    #[test]
    fn paths_that_name_no_service() {
        for path in [
            "/",
            "/team",
            "/team/",
            "/team/minil",
            "//team/minilm",
            "/team//minilm",
            "/Team/minilm",
            "/team%2Fminilm/info",
            "/t%65am/minilm/info",
            "/team/minilm/../e5/info",
            "/team/minilm/%2e%2E/e5/info",
            "/team/minilm/.",
            "/./team/minilm",
            "/health/ready",
            "/metrics",
        ] {
            let refusal = routed(Method::GET, "gateway", path).expect_err(path);
            assert!(matches!(refusal, Refusal::UnknownUrl { .. }), "{path}: {refusal:?}");
        }
    }

    #[test]
    fn a_path_that_looks_like_a_service_says_which() {
        let refusal = routed(Method::GET, "gateway", "/team/minil/info").expect_err("no such service");
        assert_eq!(refusal, Refusal::UnknownUrl { asked: ServiceName::new("team", "minil") });
    }

    /// Regression: a namespace called `v1` must not get the requests that name their model.
    #[test]
    fn a_namespace_called_v1_gets_nothing_by_path() {
        assert_eq!(told(Method::POST, "gateway", "/v1/embeddings"), "Model /v1/embeddings");
        assert_eq!(told(Method::POST, "embeddings.v1.svc", "/x"), "Host v1/embeddings /x");
    }

    #[test]
    fn the_gateways_own_routes() {
        let own = |method, path| told(method, "gateway.kembed.svc", path);
        assert_eq!(own(Method::GET, "/v1/models"), "List");
        assert_eq!(own(Method::HEAD, "/v1/models?x"), "List");
        assert_eq!(own(Method::POST, "/v1/models"), r#"MethodNotAllowed { allow: "GET, HEAD" }"#);
        assert_eq!(own(Method::POST, "/v1/rerank?x=1"), "Model /v1/rerank?x=1");
        assert_eq!(own(Method::GET, "/v1/embeddings"), r#"MethodNotAllowed { allow: "POST" }"#);
        assert_eq!(own(Method::GET, "/v1/files"), "UnknownUrl { asked: None }");
        assert_eq!(own(Method::POST, "/"), "UnknownUrl { asked: None }");
    }

    #[test]
    fn the_host_of_the_request_line_wins() {
        assert_eq!(told(Method::GET, "e5.team", "http://minilm.team.svc/info"), "Host team/minilm /info");
        assert_eq!(told(Method::GET, "e5.team", "http://other.example/info"), "UnknownUrl { asked: None }");
        assert_eq!(told(Method::GET, "e5.team", "http://user@minilm.team/info"), "Host team/minilm /info");
    }

    #[test]
    fn requests_without_a_path_belong_to_nothing() {
        assert_eq!(told(Method::OPTIONS, "minilm.team", "*"), "UnknownUrl { asked: None }");
        assert_eq!(told(Method::CONNECT, "minilm.team", "minilm.team:80"), "UnknownUrl { asked: None }");
    }

    #[test]
    fn two_hosts_are_refused() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("minilm.team"));
        headers.append(HOST, HeaderValue::from_static("e5.team"));
        let routed = route(&Method::GET, &Uri::from_static("/info"), &headers, |_| Some(()));
        assert_eq!(routed, Err(Refusal::TwoHosts));
    }

    proptest! {
        #[test]
        fn any_host_and_path_are_routed_or_refused(host in any::<String>(), path in "/[!-~]{0,40}") {
            if Uri::try_from(&path).is_ok() {
                let _ = routed(Method::POST, &host, &path);
            }
        }

        #[test]
        fn by_host_nothing_of_the_target_changes(target in r"/[a-z0-9/.%_-]{0,20}(\?[a-z0-9=&/.-]{0,20})?") {
            let wanted = format!("Host team/minilm {target}");
            prop_assert_eq!(told(Method::GET, "minilm.team.svc", &target), wanted);
        }

        #[test]
        fn by_path_only_the_prefix_goes(rest in r"/[a-z0-9/_-]{0,20}(\?[a-z0-9=&/.-]{0,20})?") {
            let wanted = format!("Path team/minilm {rest}");
            prop_assert_eq!(told(Method::GET, "gateway", &format!("/team/minilm{rest}")), wanted);
        }

        #[test]
        fn only_services_that_exist_are_routed_to(
            host in "(minilm|e5|x)(\\.(team|y|v1))?(\\.svc)?", path in "(/(team|y|minilm|e5|\\.\\.)){0,4}"
        ) {
            if let Ok(Route::Service { name, .. }) = routed(Method::GET, &host, &format!("{path}/")) {
                prop_assert!(SERVICES.contains(&name.to_string().as_str()), "{}", name);
            }
        }
    }
}
