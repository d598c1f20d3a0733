//! Spans as tests read them: read without any I/O.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{self as otlp, status::StatusCode},
};
use serde::{Deserialize, Serialize};

use crate::hex;

/// A part of a request's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// `service.name` of whoever sent it.
    pub service: String,
    /// Its trace, in 32 hexadecimal digits.
    pub trace: String,
    /// In 16 hexadecimal digits.
    pub id: String,
    /// The span that it is a part of, which another program may have sent. The first of a trace has none.
    pub parent: Option<String>,
    /// Its name.
    pub name: String,
    /// When it began, in nanoseconds since 1970.
    pub start: u64,
    /// When it ended, in the same.
    pub end: u64,
    /// Whether its program was at fault.
    pub failed: bool,
    /// What is said about it; numbers as text.
    pub attributes: BTreeMap<String, String>,
}

/// The spans that a program sent at once.
pub fn of_request(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for sent in request.resource_spans {
        let about = attributes(sent.resource.map(|resource| resource.attributes).unwrap_or_default());
        let service = about.get("service.name").cloned().unwrap_or_default();
        let all = sent.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(all.map(|span| of_span(span, &service)));
    }
    spans
}

fn of_span(span: otlp::Span, service: &str) -> Span {
    Span {
        service: service.to_owned(),
        trace: hex::digits(&span.trace_id),
        id: hex::digits(&span.span_id),
        parent: Some(hex::digits(&span.parent_span_id)).filter(|id| !id.is_empty()),
        name: span.name,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        failed: span.status.is_some_and(|status| status.code == StatusCode::Error as i32),
        attributes: attributes(span.attributes),
    }
}

fn attributes(all: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |KeyValue { key, value, .. }| {
        let text = match value?.value? {
            Value::StringValue(text) => text,
            Value::BoolValue(value) => value.to_string(),
            Value::IntValue(value) => value.to_string(),
            Value::DoubleValue(value) => value.to_string(),
            // No program of kembed's sends another kind.
            other => format!("{other:?}"),
        };
        Some((key, text))
    };
    all.into_iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        common::v1::AnyValue,
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Status},
    };

    use super::*;

    fn said(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    #[test]
    fn spans_are_read_with_their_program_and_what_is_said_about_them() {
        let child = otlp::Span {
            trace_id: vec![0xab; 16],
            span_id: vec![1; 8],
            parent_span_id: vec![2; 8],
            name: "run".into(),
            start_time_unix_nano: 5,
            end_time_unix_nano: 7,
            attributes: vec![
                said("http.response.status_code", Value::IntValue(503)),
                said("http.route", Value::StringValue("/embed".into())),
            ],
            status: Some(Status { code: StatusCode::Error as i32, ..Status::default() }),
            ..otlp::Span::default()
        };
        let first = otlp::Span { parent_span_id: Vec::new(), status: None, ..child.clone() };
        let resource = Resource {
            attributes: vec![said("service.name", Value::StringValue("a-pod".into()))],
            ..Resource::default()
        };
        let scope_spans = vec![ScopeSpans { spans: vec![child, first], ..ScopeSpans::default() }];
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource),
                scope_spans,
                ..ResourceSpans::default()
            }],
        };
        let spans = of_request(request);
        let attributes = [("http.response.status_code", "503"), ("http.route", "/embed")];
        let child = Span {
            service: "a-pod".into(),
            trace: "ab".repeat(16),
            id: "01".repeat(8),
            parent: Some("02".repeat(8)),
            name: "run".into(),
            start: 5,
            end: 7,
            failed: true,
            attributes: attributes.map(|(key, value)| (key.into(), value.into())).into(),
        };
        assert_eq!(spans, [child.clone(), Span { parent: None, failed: false, ..child }]);
    }
}
