//! Sending spans in words: the library that sends them says nothing of what it could not send.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};

/// Sends by another one, and says in the log when that begins to fail and when it works again: a collector may be away for
/// long, and is no reason for a line every few seconds.
#[derive(Debug)]
pub(crate) struct Outspoken<E> {
    exporter: E,
    fails: AtomicBool,
}

impl<E> Outspoken<E> {
    pub(crate) fn new(exporter: E) -> Self {
        Self { exporter, fails: AtomicBool::new(false) }
    }

    fn tell(&self, result: &OTelSdkResult) {
        match (self.fails.swap(result.is_err(), Ordering::Relaxed), result) {
            (false, Err(error)) => {
                tracing::warn!(%error, "failed to send traces; they are lost until the collector takes them again");
            }
            (true, Ok(())) => tracing::info!("the collector takes traces again"),
            (true, Err(_)) | (false, Ok(())) => {}
        }
    }
}

impl<E: SpanExporter> SpanExporter for Outspoken<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        self.tell(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
