#!/usr/bin/env python3
"""Makes the small models beside this file: random weights, and what the reference implementation says of some texts.

    python3 -m venv venv
    venv/bin/pip install torch==2.15.0 transformers==5.23.0 onnx==1.23.2 onnxruntime==1.31.1
    venv/bin/python make.py [NAME...]

Each folder holds a whole model as a hub has it (config.json, tokenizer.json, weights, sentence-transformers' files) and
golden.json: for each text its token ids, cut at the model's limit, and its vector, from transformers in float32, one
text at a time and so without padding. Pooling, dense layers and normalisation are written out below as
sentence-transformers does them. For models that classify, the vector holds the logits, and there are pairs of texts,
too, with the type of each token. A model that is shipped as graphs has "quantized" too: what ONNX Runtime makes of the
one in eight bits. tests/architectures.rs compares.

Weights are far larger than a trained model's, and so is what a mistake in a mask, a position or a norm does to vectors.
"""

import copy
import json
import shutil
import sys
from pathlib import Path

import onnxruntime
import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = Path(__file__).parent
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = "the of and to in a is that for it as was with be by on not he his but at are this have from".split()
TEXTS = [
    "a",
    "",
    "The cat is on the mat",
    "the of and to in a is that for it as was with be by on not",
    "Not he, but his cat: it was in the house!",
    "?",
    "x y z",
    "Zürich 東京 🙂 unknown",
    "this have from " * 5,
    "  spaces   and\ttabs\nand lines ",
    "far from the mat that was in the house of the cat was a dog that was not for it " * 2,
    "a long text that is cut where the model's own limit is: " + "but not at the end of it, " * 30,
]
PAIRS = [
    ("Was the cat in the house?", "It was not in the house, but on the mat"),
    ("It was not in the house, but on the mat", "Was the cat in the house?"),
    ("a", "a"),
    ("", "far from the mat"),
    ("the cat", TEXTS[-1]),
    (TEXTS[-1], TEXTS[-2]),
]


def tokenizer(pad, unknown, first, last, folder, limit):
    """Words, pieces and letters; `pad`, `unknown`, `first` and `last` are special, and `first` may be None."""
    specials = [first, pad, last, unknown] if first == "<s>" else [pad, unknown, first, last]
    names = [name for name in dict.fromkeys(specials) if name]
    punctuation = list(".,:;!?'")
    vocabulary = names + WORDS + list(LETTERS) + ["##" + c for c in LETTERS] + punctuation
    ids = {token: i for i, token in enumerate(dict.fromkeys(vocabulary))}
    own = Tokenizer(models.WordPiece(ids, unk_token=unknown))
    own.normalizer = normalizers.BertNormalizer(lowercase=True)
    own.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    single = f"{first} $A {last}" if first else f"$A {last}"
    pair = f"{first} $A {last} $B:1 {last}:1" if first else f"$A $B:1 {last}:1"
    own.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(name, ids[name]) for name in {first, last} if name]
    )
    own.add_special_tokens(names)
    own.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", {"model_max_length": limit})
    own.enable_truncation(limit)
    return own, ids


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def randomise(module, seed):
    """Numbers large enough that each part of the network matters."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            spread = 1.0 if "embed" in name else 1.6 / parameter.shape[1] ** 0.5
            parameter.data = noise * spread
        elif name.endswith("bias"):
            parameter.data = noise * 0.3
        else:
            parameter.data = 1 + noise * 0.3


def pool(kind, hidden):
    n = hidden.shape[0]
    match kind:
        case "cls":
            return hidden[0]
        case "lasttoken":
            return hidden[-1]
        case "mean":
            return hidden.mean(0)
        case "max":
            return hidden.max(0).values
        case "mean_sqrt_len":
            return hidden.sum(0) / n**0.5
        case "weightedmean":
            weights = torch.arange(1, n + 1, dtype=torch.float32)
            return (hidden * weights[:, None]).sum(0) / weights.sum()
    raise ValueError(kind)


KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def modules(folder, pooling, dense, normalize, hidden):
    """The files of sentence-transformers; returns the dense layers."""
    package = "sentence_transformers.models"
    steps = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write(
        folder / "1_Pooling/config.json",
        {"word_embedding_dimension": hidden} | {key: name == pooling for name, key in KEYS.items()},
    )
    layers = []
    size = hidden
    for seed, (to, bias, activation) in enumerate(dense):
        path = f"{len(steps)}_Dense"
        layer = torch.nn.Linear(size, to, bias)
        randomise(layer, 100 + seed)
        config = {"in_features": size, "out_features": to, "bias": bias}
        write(folder / path / "config.json", config | {"activation_function": activation})
        state = {f"linear.{name}": value.contiguous() for name, value in layer.state_dict().items()}
        save_file(state, folder / path / "model.safetensors")
        layers.append(lambda x, layer=layer, act=eval(activation)(): act(layer(x)))
        steps.append((path, "Dense"))
        size = to
    if normalize:
        steps.append((f"{len(steps)}_Normalize", "Normalize"))
        layers.append(lambda x: torch.nn.functional.normalize(x, dim=0))
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"{package}.{kind}"} for i, (path, kind) in enumerate(steps)
    ]
    write(folder / "modules.json", listed)
    return layers


BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
ROBERTA_TOKENS = ("<pad>", "<unk>", "<s>", "</s>")
QWEN_TOKENS = ("<|endoftext|>", "<|unk|>", None, "<|endoftext|>")
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def make(
    name,
    config,
    *,
    tokens=BERT_TOKENS,
    limit=40,
    pooling="mean",
    dense=(),
    normalize=False,
    dtype=torch.float32,
    shards=None,
    reference=None,
    head=None,
    rename=None,
):
    """One model. `config` is config.json as hubs have it, `reference` the same for transformers where that differs."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    own, ids = tokenizer(*tokens, folder, limit)
    sizes = {"vocab_size": len(ids), "pad_token_id": ids[tokens[0]]}
    kinds = transformers.AutoConfig.for_model
    settings = {k: v for k, v in (reference or config).items() if k not in ("model_type", "architectures")}
    if "id2label" in settings:
        settings["id2label"] = {int(i): label for i, label in settings["id2label"].items()}
    settings = kinds(config["model_type"], **settings, **sizes, attn_implementation="eager")
    model = (head or transformers.AutoModel).from_config(settings).eval()
    randomise(model, sum(name.encode()))
    # The reference computes in float32, with the numbers that are saved.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype).float()
    sharded = {"max_shard_size": shards} if shards else {}
    copy.deepcopy(model).to(dtype).save_pretrained(folder, **sharded)
    for file in folder.glob("generation_config.json"):
        file.unlink()
    write(folder / "config.json", config | sizes)
    hidden = settings.hidden_size
    layers = [] if head else modules(folder, pooling, dense, normalize, hidden)
    cases = []
    for texts in [(text,) for text in TEXTS] + (PAIRS if head else []):
        encoding = own.encode(*texts)
        # Other models have no types, or one alone.
        types = {"token_type_ids": torch.tensor([encoding.type_ids])} if settings.model_type == "bert" else {}
        with torch.no_grad():
            out = model(input_ids=torch.tensor([encoding.ids]), **types)
            vector = out.logits[0] if head else pool(pooling, out.last_hidden_state[0])
            for layer in layers:
                vector = layer(vector)
        pair = {"pair": texts[1], "type_ids": encoding.type_ids} if len(texts) > 1 else {}
        vector = [float(f"{x:.7g}") for x in vector.tolist()]
        cases.append({"text": texts[0], **pair, "input_ids": encoding.ids, "vector": vector})
    about = f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"
    save(folder, about, limit, cases)
    spread = torch.tensor([case["vector"] for case in cases]).std(0).mean()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{name}: {size >> 10} KiB, dimension {len(cases[0]['vector'])}, spread {spread:.3f}")


def save(folder, about, limit, cases):
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    (folder / "golden.json").write_text(f'{{"about": "{about}", "limit": {limit}, "cases": [\n{lines}\n]}}\n')


class Hidden(torch.nn.Module):
    """A network with the inputs and the output that exporters give it."""

    INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
    OUTPUT = "last_hidden_state"

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        return self.model(**dict(zip(self.INPUTS, inputs)))[self.OUTPUT]


def shipped(name, of):
    """The model `of` as graphs instead of weights, as peers ship them: one as PyTorch exports it, one quantised."""
    source, folder = HERE / of, HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.safetensors", "golden.json"))
    model = transformers.AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    plain, quantized = folder / "onnx/model.onnx", folder / "onnx/model_quantized.onnx"
    plain.parent.mkdir()
    # Two rows of different lengths, so that nothing of them is taken for a constant.
    ids, mask = torch.tensor([[2, 9, 5, 3], [2, 9, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    names = [*Hidden.INPUTS, Hidden.OUTPUT]
    torch.onnx.export(
        Hidden(model),
        (ids, mask, torch.zeros_like(ids)),
        plain,
        input_names=Hidden.INPUTS,
        output_names=[Hidden.OUTPUT],
        dynamic_axes={name: {0: "batch_size", 1: "sequence_length"} for name in names},
        opset_version=14,
        dynamo=False,
    )
    # Unsigned: products of signed numbers overflow on processors without VNNI.
    quantize_dynamic(plain, quantized, weight_type=QuantType.QUInt8)
    session = onnxruntime.InferenceSession(quantized)
    golden = json.loads((source / "golden.json").read_text())
    for case in golden["cases"]:
        ids = [case["input_ids"]]
        ones, zeros = [[1] * len(ids[0])], [[0] * len(ids[0])]
        (hidden,) = session.run([Hidden.OUTPUT], dict(zip(Hidden.INPUTS, (ids, ones, zeros))))
        vector = torch.nn.functional.normalize(pool("mean", torch.tensor(hidden[0])), dim=0)
        case["quantized"] = [float(f"{x:.7g}") for x in vector.tolist()]
    save(folder, f"{golden['about']}, onnxruntime {onnxruntime.__version__}", golden["limit"], golden["cases"])


BERT = {"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2} | SMALL
ROBERTA = BERT | {"layer_norm_eps": 1e-5, "type_vocab_size": 1, "max_position_embeddings": 42}

DISTILBERT = {
    "model_type": "distilbert",
    "activation": "gelu",
    "dim": 32,
    "hidden_dim": 48,
    "n_heads": 4,
    "n_layers": 2,
    "max_position_embeddings": 40,
    "sinusoidal_pos_embds": False,
}
MODERNBERT = SMALL | {
    "model_type": "modernbert",
    "num_hidden_layers": 4,
    "hidden_activation": "gelu",
    "norm_eps": 1e-5,
    "layer_norm_eps": 1e-5,
    "global_attn_every_n_layers": 3,
    "local_attention": 8,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 60,
}

MODELS = {
    "bert": lambda name: make(name, BERT | {"max_position_embeddings": 40}, normalize=True),
    "roberta": lambda name: make(name, ROBERTA | {"model_type": "roberta"}, tokens=ROBERTA_TOKENS, pooling="cls"),
    "xlm-roberta": lambda name: make(name, ROBERTA | {"model_type": "xlm-roberta"}, tokens=ROBERTA_TOKENS),
    "distilbert": lambda name: make(name, DISTILBERT, pooling="max"),
    # Long enough for each of its 32 buckets of distance.
    "mpnet": lambda name: make(
        name,
        BERT | {"model_type": "mpnet", "max_position_embeddings": 142, "relative_attention_num_buckets": 32},
        tokens=ROBERTA_TOKENS,
        limit=140,
    ),
    "modernbert": lambda name: make(name, MODERNBERT, limit=60, pooling="cls"),
    "nomic_bert": lambda name: make(
        name,
        {
            "model_type": "nomic_bert",
            "n_embd": 32,
            "n_head": 4,
            "n_inner": 48,
            "n_layer": 2,
            "n_positions": 60,
            "activation_function": "swiglu",
            "layer_norm_epsilon": 1e-12,
            "rotary_emb_base": 1000,
            "rotary_emb_fraction": 1.0,
            "rotary_emb_interleaved": False,
            "rotary_scaling_factor": None,
            "prenorm": False,
            "qkv_proj_bias": False,
            "mlp_fc1_bias": False,
            "mlp_fc2_bias": False,
            "type_vocab_size": 2,
        },
        limit=60,
        reference=SMALL
        | {
            "model_type": "nomic_bert",
            "hidden_act": "silu",
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": 60,
            "type_vocab_size": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
        },
    ),
    # A head is wider than its part of the hidden vector, and two of them share a key, as in the real ones.
    "qwen3": lambda name: make(
        name,
        SMALL
        | {
            "model_type": "qwen3",
            "hidden_act": "silu",
            "head_dim": 16,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000,
            "rope_scaling": None,
            "attention_bias": False,
            "use_sliding_window": False,
            "tie_word_embeddings": True,
            "max_position_embeddings": 60,
        },
        tokens=QWEN_TOKENS,
        limit=60,
        pooling="lasttoken",
        normalize=True,
        dtype=torch.bfloat16,
    ),
    "dense": lambda name: make(
        name,
        BERT | {"max_position_embeddings": 40, "hidden_act": "relu"},
        pooling="weightedmean",
        dense=[(24, True, "torch.nn.modules.activation.Tanh"), (16, False, "torch.nn.modules.linear.Identity")],
        normalize=True,
    ),
    "bert-classifier": lambda name: make(
        name,
        BERT
        | {
            "architectures": ["BertForSequenceClassification"],
            "max_position_embeddings": 40,
            "id2label": {"0": "bad", "1": "good", "2": "neither"},
        },
        head=transformers.AutoModelForSequenceClassification,
    ),
    "xlm-roberta-classifier": lambda name: make(
        name,
        ROBERTA
        | {
            "model_type": "xlm-roberta",
            "architectures": ["XLMRobertaForSequenceClassification"],
            "id2label": {"0": "LABEL_0"},
        },
        tokens=ROBERTA_TOKENS,
        head=transformers.AutoModelForSequenceClassification,
    ),
    "distilbert-classifier": lambda name: make(
        name,
        DISTILBERT | {"architectures": ["DistilBertForSequenceClassification"]},
        head=transformers.AutoModelForSequenceClassification,
    ),
    "modernbert-classifier": lambda name: make(
        name,
        MODERNBERT
        | {
            "architectures": ["ModernBertForSequenceClassification"],
            "num_hidden_layers": 2,
            "classifier_pooling": "mean",
            "classifier_activation": "gelu",
            "id2label": {"0": "LABEL_0"},
        },
        limit=60,
        head=transformers.AutoModelForSequenceClassification,
    ),
    "sharded": lambda name: make(
        name,
        BERT | {"max_position_embeddings": 40, "hidden_act": "gelu_new"},
        pooling="mean_sqrt_len",
        dtype=torch.float16,
        shards="20KB",
    ),
    "shipped": lambda name: shipped(name, "bert"),
}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or MODELS:
        MODELS[wanted](wanted)
