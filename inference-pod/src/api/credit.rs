//! What a gateway that keeps count of this pod's credit is told.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::HeaderValue,
    middleware::Next,
    response::{IntoResponse, Response},
};
use kembed_queue::credit::{GRANTED_HEADER, NO_CREDIT_HEADER, POD_LOAD_HEADER, PodLoad};

use super::{ApiError, terms::lane};
use crate::{effort::Effort, pod::Pod};

/// Refuses a granted request while there is no credit, before anything of it is read, and tells the load with each
/// answer to one. Others are none of its business.
pub(super) async fn kept(State(pod): State<Arc<Pod>>, request: Request, next: Next) -> Response {
    let granted = request.headers().get(GRANTED_HEADER).is_some_and(|value| value == "true");
    let Some(serving) = pod.serving().ok().filter(|_| granted) else { return next.run(request).await };
    // A word that is no lane is refused further on.
    let lane = lane(request.headers()).unwrap_or_default();
    let mut response = if serving.engine.has_credit(lane) {
        next.run(request).await
    } else {
        let mut refusal = ApiError::no_credit().into_response();
        refusal.headers_mut().insert(NO_CREDIT_HEADER, HeaderValue::from_static("true"));
        refusal
    };
    let work = response.extensions().get::<Effort>().map_or(0, |effort| effort.tokens as u64);
    let load = PodLoad { work, ..serving.engine.load() };
    if let Ok(load) = HeaderValue::try_from(load.to_string()) {
        response.headers_mut().insert(POD_LOAD_HEADER, load);
    }
    response
}
