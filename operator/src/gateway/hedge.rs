//! A request at its pod, and if that one takes long, at another one too: whoever answers first wins.

use std::{pin::pin, sync::Arc, time::Duration};

use kembed_queue::{Failure, dispatcher::HedgeEnd};
use tokio::time::{Instant, timeout};

use super::{
    attempt::{Attempt, Outcome},
    metrics::Metrics,
    owner::Asked,
    service_queue::{Granted, Pod},
    turn::Turn,
    upstream::Upstream,
};

/// How a request fared.
pub struct Tried {
    /// How it ended.
    pub outcome: Outcome,
    /// Time that the pod had which that is of.
    pub limit: Duration,
    /// When that is over.
    pub deadline: Instant,
    /// The pod that answered, if it was the second one.
    pub second: Option<Second>,
}

/// The second pod won.
pub struct Second {
    /// Which it was.
    pub pod: Arc<Pod>,
    /// How the first one had failed, if it had.
    pub failed: Option<Failure>,
}

/// What takes requests to pods.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// Sends them.
    pub upstream: &'a Upstream,
    /// Counts.
    pub metrics: &'a Metrics,
    /// Time for a pod to answer, where the service does not say.
    pub request_timeout: Duration,
}

/// Tries a request at the pod that was granted, and at a second one as `turn` allows. Dropping this ends both.
pub async fn run(means: Means<'_>, asked: &Asked, turn: &Turn, granted: &Granted) -> Tried {
    let Some(late) = granted.hedge_after else {
        let attempt = Attempt::new(asked, granted, means.request_timeout);
        let (limit, deadline) = (attempt.limit, attempt.deadline);
        let outcome = attempt.make(means.upstream).await;
        means.metrics.attempted(outcome.label());
        return Tried { outcome, limit, deadline, second: None };
    };
    // In a box: else every request would have room for three attempts.
    Box::pin(race(means, asked, turn, granted, late)).await
}

/// Tries it at a second pod too if the first one has not answered by then.
async fn race(means: Means<'_>, asked: &Asked, turn: &Turn, granted: &Granted, late: Duration) -> Tried {
    let Means { upstream, metrics, request_timeout } = means;
    let attempt = Attempt::new(asked, granted, request_timeout);
    let (limit, deadline) = (attempt.limit, attempt.deadline);
    let first_alone = |outcome: Outcome| {
        metrics.attempted(outcome.label());
        Tried { outcome, limit, deadline, second: None }
    };
    let mut first = pin!(attempt.make(upstream));
    if let Ok(outcome) = timeout(late, &mut first).await {
        return first_alone(outcome);
    }
    let Some(hedge) = turn.hedge() else { return first_alone(first.await) };
    let attempt = Attempt::new(asked, &hedge, request_timeout);
    let (limit, deadline) = (attempt.limit, attempt.deadline);
    let mut second = pin!(attempt.make(upstream));
    let (failed, outcome) = tokio::select! {
        biased;
        outcome = &mut first => match outcome {
            // The other one may still answer.
            Outcome::Failed(failure, answer) => (Some((failure, answer)), second.await),
            outcome => {
                metrics.hedged("lost");
                return first_alone(outcome);
            }
        },
        outcome = &mut second => (None, outcome),
    };
    metrics.attempted(outcome.label());
    let end = match outcome {
        Outcome::Answered(..) => {
            metrics.hedged("won");
            let failed = failed.map(|(failure, _)| failure);
            let pod = hedge.pod.clone();
            return Tried { outcome, limit, deadline, second: Some(Second { pod, failed }) };
        }
        Outcome::NoCredit(load) => HedgeEnd::NoCredit(load),
        Outcome::Failed(failure, _) => HedgeEnd::Failed(failure),
        Outcome::TimedOut => HedgeEnd::TimedOut,
        Outcome::TooLate => HedgeEnd::TooLate,
    };
    metrics.hedged("failed");
    turn.hedge_failed(end);
    match failed {
        Some((failure, answer)) => first_alone(Outcome::Failed(failure, answer)),
        None => first_alone(first.await),
    }
}
