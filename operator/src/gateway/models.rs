//! The list of services, as OpenAI clients read it.

use bytes::Bytes;
use serde::Serialize;

use super::name::ServiceName;

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Serialize)]
struct Model {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
}

/// The answer to `GET /v1/models`: each service with the second since 1970 at which it was created.
pub fn list<'a>(services: impl Iterator<Item = (&'a ServiceName, i64)>) -> Bytes {
    let model = |(name, created): (&ServiceName, i64)| Model {
        id: name.to_string(),
        object: "model",
        created,
        owned_by: "kembed",
    };
    let list = List { object: "list", data: services.map(model).collect() };
    Bytes::from(serde_json::to_vec(&list).expect("strings and numbers always serialise"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn ids_are_what_a_request_writes_as_its_model() {
        let name = ServiceName::new("team", "minilm").expect("two labels");
        let read: Value = serde_json::from_slice(&list([(&name, 60)].into_iter())).expect("our own JSON");
        assert_eq!(
            read,
            json!({"object": "list", "data": [
                {"id": "team/minilm", "object": "model", "created": 60, "owned_by": "kembed"}
            ]})
        );
    }
}
