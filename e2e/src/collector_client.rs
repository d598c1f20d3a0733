//! What the [collector](crate::collector) of the test cluster got, as a test asks it.

use anyhow::Context;

use crate::{client::Client, collector::span::Span, wait::await_that};

/// The collector that programs of the test cluster send traces to.
#[derive(Clone, Debug)]
pub struct CollectorClient(pub(crate) Client);

impl CollectorClient {
    /// The spans of a trace so far, in the order in which they came.
    ///
    /// # Errors
    /// If the collector does not tell.
    pub async fn spans(&self, trace: &str) -> anyhow::Result<Vec<Span>> {
        let url = format!("http://collector:4318/spans?trace={trace}");
        let answer = self.0.get(&url).await?.success()?;
        serde_json::from_value(answer.json()?).context("the collector's answer is another")
    }

    /// Waits until spans of all these names have come, and of each what it is a part of, up to the client's, which sends none
    /// itself. Programs send in their own time.
    ///
    /// # Errors
    /// If they do not come, with those that did.
    pub async fn await_spans(&self, trace: &str, client: &str, names: &[&str]) -> anyhow::Result<Vec<Span>> {
        let look = || async {
            let spans = self.spans(trace).await?;
            let is_whole = names.iter().all(|name| spans.iter().any(|span| span.name == *name))
                && spans.iter().all(|span| is_inside(span, client, &spans));
            Ok(is_whole.then_some(spans))
        };
        match await_that("spans", look).await {
            Ok(spans) => Ok(spans),
            Err(error) => {
                Err(error.context(format!("of {names:?} came only {:?}", self.spans(trace).await?)))
            }
        }
    }
}

/// Whether one span is inside another, or inside one that is; `outer` may be the span of a client that sends none.
pub fn is_inside(span: &Span, outer: &str, all: &[Span]) -> bool {
    // No further up than there are spans: a circle leads nowhere.
    let mut parent = span.parent.as_deref();
    for _ in 0..=all.len() {
        match parent {
            None => return false,
            Some(id) if id == outer => return true,
            Some(id) => {
                parent = all.iter().find(|span| span.id == id).and_then(|span| span.parent.as_deref())
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn span(id: &str, parent: Option<&str>) -> Span {
        let text = String::new;
        Span {
            service: text(),
            trace: text(),
            id: id.into(),
            parent: parent.map(Into::into),
            name: text(),
            start: 0,
            end: 0,
            failed: false,
            attributes: BTreeMap::new(),
        }
    }

    #[test]
    fn the_way_up_leads_through_all_parents() {
        let all = [
            span("b", Some("a")),
            span("c", Some("b")),
            span("d", None),
            span("e", Some("f")),
            span("f", Some("e")),
        ];
        let inside: Vec<_> =
            all.iter().filter(|span| is_inside(span, "a", &all)).map(|span| &*span.id).collect();
        assert_eq!(inside, ["b", "c"]);
        assert!(!is_inside(&all[1], "d", &all));
    }
}
