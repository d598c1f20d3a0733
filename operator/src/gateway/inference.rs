//! Which requests ask for vectors. Only those count as load, and only those wake a service: whatever looks at it now and
//! then, such as a probe, must not keep it from sleeping.

use http::{Method, uri::PathAndQuery};

/// Paths of an inference pod at which a model computes something, by `POST`.
const COMPUTED: [&str; 8] =
    ["/v1/embeddings", "/", "/embed", "/embed_all", "/similarity", "/rerank", "/tokenize", "/decode"];

/// Paths at which a `GET` with this parameter asks for a vector.
const PLAIN: [(&str, &str); 3] =
    [("/", "content"), ("/get_vector_simple", "sentence"), ("/get_vector_async", "sentence")];

/// Whether a request to a service's pod has the model compute something.
pub fn is_inference(method: &Method, target: &PathAndQuery) -> bool {
    match *method {
        Method::POST => COMPUTED.contains(&target.path()),
        Method::GET => PLAIN.contains(&(target.path(), first_parameter(target.query().unwrap_or_default()))),
        _ => false,
    }
}

fn first_parameter(query: &str) -> &str {
    let pair = query.split('&').next().unwrap_or_default();
    pair.split_once('=').map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(method: Method, target: &'static str) -> bool {
        is_inference(&method, &PathAndQuery::from_static(target))
    }

    #[test]
    fn what_asks_for_vectors() {
        for path in ["/v1/embeddings", "/v1/embeddings?x=1", "/embed", "/", "/rerank"] {
            assert!(asks(Method::POST, path), "{path}");
        }
        for target in ["/?content=hello", "/get_vector_simple?sentence=a&x", "/get_vector_async?sentence="] {
            assert!(asks(Method::GET, target), "{target}");
        }
    }

    #[test]
    fn what_only_looks() {
        for target in [
            "/",
            "/?",
            "/?content",
            "/?x=content",
            "/health",
            "/health/ready",
            "/info",
            "/v1/models",
            "/metrics",
            "/ui",
        ] {
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                assert!(!asks(method.clone(), target), "{method} {target}");
            }
        }
        assert!(!asks(Method::HEAD, "/?content=hello"));
        assert!(!asks(Method::OPTIONS, "/v1/embeddings"));
        assert!(!asks(Method::POST, "/v1/models"));
        assert!(!asks(Method::POST, "/wp-login.php"));
    }
}
