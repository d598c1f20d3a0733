//! Who may ask for the load: the API server says whose token it is.

use std::{
    error::Error,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, header::AUTHORIZATION};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kembed_queue::report::GATEWAY_AUDIENCE;
use kube::{Api, Client, api::PostParams};
use tokio::{sync::Semaphore, time::timeout};

use super::{held_tokens::HeldTokens, keys::KeyHash};

/// The longest that the API server is waited for.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Tokens that are reviewed at the same time, so that strangers cannot have the gateway flood the API server.
const REVIEWS: usize = 4;

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no token, or the API server does not know it.
    #[error("send a token of the controller, made for the audience {GATEWAY_AUDIENCE}")]
    Unauthenticated,
    /// It is somebody else's.
    #[error("this is for the controller alone")]
    Forbidden,
    /// The API server cannot be asked, and has not vouched for this token lately.
    #[error("the API server cannot be asked whose token this is")]
    Unanswered,
}

/// Tells the controller from others.
pub struct Reviews {
    reviews: Api<TokenReview>,
    controller: Option<String>,
    held: Mutex<HeldTokens>,
    slots: Semaphore,
}

impl Reviews {
    /// `controller` is its user name as the API server has it; without one, nobody may.
    pub fn new(client: Client, controller: Option<String>) -> Self {
        Self { reviews: Api::all(client), controller, held: Mutex::default(), slots: Semaphore::new(REVIEWS) }
    }

    /// Whether the token of a request is the controller's.
    ///
    /// # Errors
    /// If it is not, or that cannot be known.
    pub async fn admit(&self, token: &str) -> Result<(), Denied> {
        let hash = KeyHash::of(token.as_bytes());
        match timeout(TIMEOUT, self.review(token)).await {
            Ok(Ok(status)) => {
                let verdict = judge(&status, self.controller.as_deref());
                match verdict {
                    Ok(()) => self.held().hold(hash, Instant::now()),
                    Err(_) => self.held().forget(&hash),
                }
                verdict
            }
            unanswered => {
                let error = unanswered.ok().and_then(Result::err);
                tracing::warn!(error = error.as_ref().map(|e| e as &dyn Error), "failed to review a token");
                let holds = self.held().holds(&hash, Instant::now());
                if holds { Ok(()) } else { Err(Denied::Unanswered) }
            }
        }
    }

    async fn review(&self, token: &str) -> kube::Result<TokenReviewStatus> {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let spec = TokenReviewSpec {
            audiences: Some(vec![GATEWAY_AUDIENCE.to_owned()]),
            token: Some(token.to_owned()),
        };
        let review = TokenReview { spec, ..TokenReview::default() };
        Ok(self.reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default())
    }

    fn held(&self) -> MutexGuard<'_, HeldTokens> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token that a request brings.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

fn judge(status: &TokenReviewStatus, controller: Option<&str>) -> Result<(), Denied> {
    // An authenticator that knows no audiences leaves them out, and then the token may be for anything.
    let is_for_us = status.audiences.iter().flatten().any(|audience| audience == GATEWAY_AUDIENCE);
    if status.authenticated != Some(true) || !is_for_us {
        return Err(Denied::Unauthenticated);
    }
    let user = status.user.as_ref().and_then(|user| user.username.as_deref());
    if controller.is_some() && user == controller { Ok(()) } else { Err(Denied::Forbidden) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    const CONTROLLER: &str = "system:serviceaccount:kembed:kembed-controller";

    fn judged(status: serde_json::Value) -> Result<(), Denied> {
        judge(&serde_json::from_value(status).expect("a status"), Some(CONTROLLER))
    }

    #[test]
    fn only_the_controller_with_a_token_for_gateways() {
        let full =
            json!({"authenticated": true, "audiences": [GATEWAY_AUDIENCE], "user": {"username": CONTROLLER}});
        assert_eq!(judged(full.clone()), Ok(()));
        let with = |key: &str, value: serde_json::Value| {
            let mut status = full.clone();
            status[key] = value;
            judged(status)
        };
        assert_eq!(with("authenticated", json!(false)), Err(Denied::Unauthenticated));
        assert_eq!(
            with("audiences", json!(["https://kubernetes.default.svc"])),
            Err(Denied::Unauthenticated)
        );
        assert_eq!(with("audiences", json!([])), Err(Denied::Unauthenticated));
        assert_eq!(with("user", json!({"username": "system:serviceaccount:team:x"})), Err(Denied::Forbidden));
        assert_eq!(with("user", json!(null)), Err(Denied::Forbidden));
        assert_eq!(judged(json!({"error": "invalid bearer token"})), Err(Denied::Unauthenticated));
    }

    #[test]
    fn without_a_name_for_the_controller_nobody_may() {
        let nameless = json!({"authenticated": true, "audiences": [GATEWAY_AUDIENCE]});
        assert_eq!(judge(&serde_json::from_value(nameless).expect("a status"), None), Err(Denied::Forbidden));
    }

    #[test]
    fn a_token_is_what_stands_after_the_scheme() {
        let token = |value: &'static str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("bearer  abc").as_deref(), Some("abc"));
        for other in ["Basic abc", "Bearer", "Bearer ", ""] {
            assert_eq!(token(other), None, "{other:?}");
        }
    }
}
