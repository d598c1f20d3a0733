//! The way of text-embeddings-inference to models that classify: `POST /rerank` and `/predict`.

use std::sync::Arc;

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use serde::Serialize;

use super::{
    ApiError,
    answer::in_space,
    aside::aside,
    read::{Received, receive},
    scores_body::{Predict, Rerank},
    tei_body::parse,
};
use crate::{
    engine::{Classify, EmbedError},
    pod::Pod,
    scores::{best_first, shares},
};

/// How well a text goes with the query.
#[derive(Serialize)]
struct Rank {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    score: f32,
}

/// `POST /rerank`: the texts by how well they go with the query, best first.
pub(super) async fn rerank(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Received { terms, serving, mut held, bytes } = receive(&pod, &headers, body).await?;
    let rerank = aside(bytes.len(), || parse::<Rerank>(&bytes)).map_err(ApiError::bad_request)?;
    let mut texts = Vec::new();
    if rerank.return_text() {
        held.grow(bytes.len()).map_err(EmbedError::from)?;
        texts = rerank.texts().to_vec();
    }
    drop(bytes);
    let raw = rerank.raw_scores();
    let request = Classify::from(rerank);
    serving.engine.make_room_to_classify(&mut held, &request)?;
    let scores = serving.engine.classify_in(terms, &mut held, request).await?.into_iter();
    let scores: Vec<f32> = scores.flat_map(|numbers| told(numbers, raw)).collect();
    let rank = |index| Rank { index, text: texts.get_mut(index).map(std::mem::take), score: scores[index] };
    let ranks: Vec<_> = best_first(&scores).into_iter().map(rank).collect();
    in_space(&pod, serving, &ranks, held)
}

/// How much a label fits.
#[derive(Serialize)]
struct Prediction<'a> {
    score: f32,
    label: &'a str,
}

/// Of one input, or of each of several.
#[derive(Serialize)]
#[serde(untagged)]
enum Predictions<'a> {
    One(Vec<Prediction<'a>>),
    Several(Vec<Vec<Prediction<'a>>>),
}

/// `POST /predict`: the labels of each input, best first.
pub(super) async fn predict(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Received { terms, serving, mut held, bytes } = receive(&pod, &headers, body).await?;
    let predict = aside(bytes.len(), || parse::<Predict>(&bytes)).map_err(ApiError::bad_request)?;
    drop(bytes);
    let (raw, one) = (predict.raw_scores(), predict.is_one());
    let request = predict.request().map_err(ApiError::bad_request)?;
    serving.engine.make_room_to_classify(&mut held, &request)?;
    let scores = serving.engine.classify_in(terms, &mut held, request).await?.into_iter();
    let labels = serving.engine.labels().unwrap_or_default();
    let mut predictions: Vec<_> = scores.map(|numbers| predictions(labels, told(numbers, raw))).collect();
    let predictions = match predictions.pop() {
        Some(only) if one => Predictions::One(only),
        last => {
            predictions.extend(last);
            Predictions::Several(predictions)
        }
    };
    in_space(&pod, serving, &predictions, held)
}

fn predictions(labels: &[String], scores: Vec<f32>) -> Vec<Prediction<'_>> {
    let best = best_first(&scores).into_iter();
    best.map(|label| Prediction { score: scores[label], label: &labels[label] }).collect()
}

/// The numbers of an input as a client wants them.
fn told(mut numbers: Vec<f32>, raw: bool) -> Vec<f32> {
    if !raw {
        shares(&mut numbers);
    }
    numbers
}
