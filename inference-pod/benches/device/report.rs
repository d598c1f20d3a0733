//! The results, for people and for programs. What was not measured is a dash, and null.

use serde_json::{Value, json};

/// What it ran on and with.
#[derive(Default)]
pub struct About {
    pub device: String,
    /// Compute capability.
    pub capability: String,
    pub driver: String,
    pub onnxruntime: String,
    pub cublas: String,
    pub pytorch: Vec<String>,
}

/// What a network's rates are compared with.
#[derive(Clone, Copy, Default)]
pub struct Peak {
    /// Operations a second of a product of two squares of 8192.
    pub square: Option<f64>,
    /// Of the products of its layers, together.
    pub own: Option<f64>,
}

/// One load.
#[derive(Default)]
pub struct Row {
    pub shape: &'static str,
    pub length: usize,
    /// Tokens of a batch.
    pub batch: usize,
    pub tokens_per_second: f64,
    /// Operations of a token.
    pub flops: f64,
    pub peak: Peak,
    /// Part of the device's time between batches.
    pub idle: Option<f64>,
    pub http: Option<Http>,
    /// Tokens a second of PyTorch.
    pub torch: Option<f64>,
}

/// The same over HTTP.
pub struct Http {
    pub tokens_per_second: f64,
    pub limit: &'static str,
    pub pod_cores: f64,
    pub client_cores: f64,
}

/// Of 100 who ask for one short text at a time, in seconds.
pub struct Latency {
    pub shape: &'static str,
    pub p50: f64,
    pub p95: f64,
}

/// A network's products, and operations a second of each.
pub struct Product {
    pub name: String,
    pub shape: [usize; 3],
    pub flops_per_second: Result<f64, String>,
}

/// Everything.
#[derive(Default)]
pub struct Report {
    pub about: About,
    pub products: Vec<Product>,
    pub rows: Vec<Row>,
    pub latencies: Vec<Latency>,
}

pub const HEAD: &str = "| load | tokens a batch | M tokens/s | TFLOP/s | of 8192³ | of its own products | idle between batches | HTTP, M tokens/s | limited by | PyTorch, M tokens/s | times PyTorch |\n\
                        |---|---|---|---|---|---|---|---|---|---|---|";

impl Row {
    fn flops_per_second(&self) -> f64 {
        self.tokens_per_second * self.flops
    }

    fn times_torch(&self) -> Option<f64> {
        self.torch.map(|torch| self.tokens_per_second / torch)
    }

    pub fn markdown(&self) -> String {
        let flops = self.flops_per_second();
        let millions = |rate: f64| format!("{:.3}", rate / 1e6);
        let part = |part: Option<f64>| or_dash(part.map(|part| format!("{:.1} %", 100. * part)));
        format!(
            "| {}, {} tokens | {} | {} | {:.1} | {} | {} | {} | {} | {} | {} | {} |",
            self.shape,
            self.length,
            self.batch,
            millions(self.tokens_per_second),
            flops / 1e12,
            part(self.peak.square.map(|peak| flops / peak)),
            part(self.peak.own.map(|peak| flops / peak)),
            part(self.idle),
            or_dash(self.http.as_ref().map(|http| millions(http.tokens_per_second))),
            self.http.as_ref().map_or("–", |http| http.limit),
            or_dash(self.torch.map(millions)),
            or_dash(self.times_torch().map(|times| format!("{times:.2}"))),
        )
    }

    fn json(&self) -> Value {
        json!({
            "shape": self.shape, "length": self.length, "batchTokens": self.batch,
            "tokensPerSecond": self.tokens_per_second, "flopsPerToken": self.flops,
            "flopsPerSecond": self.flops_per_second(),
            "partOfSquarePeak": self.peak.square.map(|peak| self.flops_per_second() / peak),
            "partOfOwnPeak": self.peak.own.map(|peak| self.flops_per_second() / peak),
            "idlePart": self.idle,
            "http": self.http.as_ref().map(|http| json!({
                "tokensPerSecond": http.tokens_per_second, "limit": http.limit, "podCores": http.pod_cores,
                "clientCores": http.client_cores,
            })),
            "pytorchTokensPerSecond": self.torch, "timesPytorch": self.times_torch(),
        })
    }
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

impl Product {
    pub fn markdown(&self) -> String {
        let [rows, columns, between] = self.shape;
        let rate = match &self.flops_per_second {
            Ok(rate) => format!("{:.1}", rate / 1e12),
            Err(why) => format!("– ({why})"),
        };
        format!("| {} | {rows} x {columns} x {between} | {rate} |", self.name)
    }
}

impl Report {
    pub fn markdown(&self) -> String {
        let About { device, capability, driver, onnxruntime, cublas, pytorch } = &self.about;
        let about = format!(
            "{device} (compute capability {capability}), driver {driver}, ONNX Runtime {onnxruntime}, cuBLAS {cublas}. PyTorch: {}.",
            pytorch.join("; ")
        );
        let mut lines = vec![about, String::new(), HEAD.to_owned()];
        lines.extend(self.rows.iter().map(Row::markdown));
        lines.extend(
            ["", "| product in fp16 by cuBLAS | rows x columns x between | TFLOP/s |", "|---|---|---|"]
                .map(str::to_owned),
        );
        lines.extend(self.products.iter().map(Product::markdown));
        let head = ["", "| 100 at a time, 1 text of 16 tokens, HTTP | p50, ms | p95, ms |", "|---|---|---|"];
        lines.extend(head.map(str::to_owned));
        let latency = |l: &Latency| format!("| {} | {:.1} | {:.1} |", l.shape, 1e3 * l.p50, 1e3 * l.p95);
        lines.extend(self.latencies.iter().map(latency));
        lines.join("\n")
    }

    pub fn json(&self) -> String {
        let About { device, capability, driver, onnxruntime, cublas, pytorch } = &self.about;
        let product = |p: &Product| json!({"name": p.name, "shape": p.shape, "flopsPerSecond": p.flops_per_second.as_ref().ok()});
        let latency = |l: &Latency| json!({"shape": l.shape, "p50Seconds": l.p50, "p95Seconds": l.p95});
        let report = json!({
            "device": device, "computeCapability": capability, "driver": driver, "onnxruntime": onnxruntime,
            "cublas": cublas, "pytorch": pytorch,
            "loads": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "products": self.products.iter().map(product).collect::<Vec<_>>(),
            "latencies": self.latencies.iter().map(latency).collect::<Vec<_>>(),
        });
        format!("{report:#}\n")
    }
}
