//! What ONNX Runtime has for GPUs alone, written once more for a CPU.

use std::path::Path;

use inference_pod::{backend::onnx::load_library, export::Exported};
use ort::{
    operator::{
        ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
    },
    session::{Session, builder::SessionBuilder},
    value::TensorElementType,
};

use super::support;

/// Two operators' names, the second of which is as long as the first.
const REAL: &[u8] = b"PackedMultiHeadAttention";
const OURS: &str = "PackedMultiHeadAttentionX";

/// As its documentation has it, with what may be left out.
struct Attention;

struct AttentionNode {
    heads: usize,
}

impl Operator for Attention {
    type Kernel<'attr> = AttentionNode;

    fn name(&self) -> &str {
        &OURS[1..]
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let (float, int) = (TensorElementType::Float32, TensorElementType::Int32);
        let [q, k, v] = [float; 3].map(OperatorInput::required);
        let [offsets, before] = [int; 2].map(OperatorInput::required);
        let [bias, more] = [float; 2].map(OperatorInput::optional);
        [q, k, v, bias, offsets, before, more]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<AttentionNode> {
        let heads = context.get::<i64>("num_heads").ok_or_else(|| ort::Error::new("no num_heads"))?;
        Ok(AttentionNode { heads: heads as usize })
    }
}

impl Kernel for AttentionNode {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let input = |i| context.input(i).map(|input| input.expect("it is required"));
        let [q, k, v, offsets, before] = [input(0)?, input(1)?, input(2)?, input(4)?, input(5)?];
        let (shape, q) = q.try_extract_tensor::<f32>()?;
        let (tokens, hidden) = (shape[0] as usize, shape[1] as usize);
        let (k, v) = (k.try_extract_tensor::<f32>()?.1, v.try_extract_tensor::<f32>()?.1);
        let bias = context.input(3)?;
        let bias = bias.as_ref().map(|bias| bias.try_extract_tensor::<f32>()).transpose()?;
        let before = before.try_extract_tensor::<i32>()?.1;
        let (padded, offsets) = offsets.try_extract_tensor::<i32>()?;
        let (rows, longest) = (padded[0], padded[1] as usize);
        assert_eq!((before.len() as i64, before.last()), (rows + 1, Some(&(tokens as i32))));
        let more = context.input(6)?;
        let more = more.as_ref().map(|more| more.try_extract_tensor::<f32>()).transpose()?;
        let heads = more.as_ref().map_or(1, |(shape, _)| shape[1] as usize);
        if let Some((shape, _)) = &more {
            assert_eq!((shape[0], &shape[2..]), (1, &[longest as i64; 2][..]));
            assert!(heads == 1 || heads == self.heads);
            // Else a GPU makes all scores of all rows at once, each as long as the longest.
            assert!(longest.is_multiple_of(8));
        }
        let mut output = context.output(0, [tokens as i64, hidden as i64])?.expect("there is an output");
        let output = output.try_extract_tensor_mut::<f32>()?.1;
        let size = hidden / self.heads;
        let at = |x: &[f32], which: usize, token: usize, i: usize| {
            x[token * hidden + i] + bias.as_ref().map_or(0., |(_, bias)| bias[which * hidden + i])
        };
        for (row, place) in before.windows(2).enumerate() {
            let (first, end) = (place[0] as usize, place[1] as usize);
            assert!(end - first <= longest);
            assert!((first..end).all(|token| offsets[token] as usize == row * longest + token - first));
            for (token, head) in (first..end).flat_map(|token| (0..self.heads).map(move |head| (token, head)))
            {
                let numbers = head * size..(head + 1) * size;
                let place = |token: usize| token - first;
                let more = |other| {
                    let at = ((head % heads) * longest + place(token)) * longest + place(other);
                    more.as_ref().map_or(0., |(_, more)| more[at])
                };
                let score = |other| {
                    let dot = |i| at(q, 0, token, i) * at(k, 1, other, i);
                    numbers.clone().map(dot).sum::<f32>() / (size as f32).sqrt() + more(other)
                };
                let scores: Vec<f32> = (first..end).map(score).collect();
                let largest = scores.iter().copied().fold(f32::MIN, f32::max);
                let weights: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
                let sum: f32 = weights.iter().sum();
                for i in numbers.clone() {
                    let part = |(weight, other): (&f32, usize)| weight * at(v, 2, other, i);
                    output[token * hidden + i] = weights.iter().zip(first..end).map(part).sum::<f32>() / sum;
                }
            }
        }
        Ok(())
    }
}

/// A session of a graph for GPUs, on the CPU.
pub fn session(graph: Exported) -> Session {
    let mut onnx = graph.onnx;
    let places: Vec<_> = onnx.windows(REAL.len()).enumerate().filter(|(_, bytes)| *bytes == REAL).collect();
    let places: Vec<_> = places.into_iter().map(|(place, _)| place).collect();
    assert!(!places.is_empty(), "the graph packs");
    for place in places {
        onnx[place..place + REAL.len()].copy_from_slice(&OURS.as_bytes()[1..]);
    }
    let with_attention = |builder: SessionBuilder| {
        Ok(builder.with_operators(OperatorDomain::new("com.microsoft")?.add(Attention)?)?)
    };
    open(&onnx, &graph.folder, with_attention).expect("a good graph")
}

/// ONNX Runtime checks a graph before it looks for what runs its nodes. For CPUs it has all that a GPU is asked for, but for
/// the attention: that is what must be missing, and nothing else be wrong.
#[track_caller]
pub fn assert_nothing_else_is_missing(which: &str, graph: &Exported) {
    let error = open(&graph.onnx, &graph.folder, Ok).map(drop).expect_err("a CPU has no such attention");
    let error = error.message();
    let missing =
        ["implementation for PackedMultiHeadAttention", "kernel for com.microsoft.PackedMultiHeadAttention"];
    assert!(missing.iter().any(|words| error.contains(words)), "{which}: {error}");
}

fn open(
    onnx: &[u8],
    folder: &Path,
    more: impl FnOnce(SessionBuilder) -> ort::Result<SessionBuilder>,
) -> ort::Result<Session> {
    let environment = load_library(&support::onnxruntime()).expect("the library loads");
    let folders = "session.model_external_initializers_file_folder_path";
    let builder = Session::builder(&environment)?
        .with_intra_threads(1)?
        .with_config_entry(folders, folder.to_string_lossy())?;
    more(builder)?.commit_from_memory(onnx)
}
