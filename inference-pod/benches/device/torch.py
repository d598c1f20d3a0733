"""python3 torch.py MODEL TOKENS-A-BATCH SECONDS LENGTH...: the same network by sentence-transformers, in float16 and compiled.

Prints a line of JSON for each length: {"length": 16, "tokensPerSecond": 1e6}, or one {"absent": "why"}.
"""
import json, sys, time

try:
    import torch, transformers, sentence_transformers
    from sentence_transformers import SentenceTransformer, models

    if not torch.cuda.is_available():
        raise ImportError("torch sees no GPU")
except ImportError as error:
    print(json.dumps({"absent": str(error)}))
    sys.exit()

folder, batch, seconds, lengths = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), [int(a) for a in sys.argv[4:]]
transformer = models.Transformer(folder)
model = SentenceTransformer(modules=[transformer, models.Pooling(transformer.get_word_embedding_dimension())], device="cuda")
model = model.half().eval()
forward = torch.compile(model.forward, dynamic=False)
print(json.dumps({"versions": f"torch {torch.__version__}, sentence-transformers {sentence_transformers.__version__}"}))
for length in lengths:
    rows = batch // length
    ids = torch.randint(5, 1000, (rows, length))
    mask = torch.ones_like(ids)

    def run():
        """From token ids on the host to vectors on the host, as the pipeline does; the copy back is waited for later."""
        features = {"input_ids": ids.pin_memory().cuda(non_blocking=True), "attention_mask": mask.cuda(non_blocking=True)}
        return forward(features)["sentence_embedding"].float().to("cpu", non_blocking=True)

    with torch.inference_mode():
        for _ in range(5):
            run()
        torch.cuda.synchronize()
        start, batches = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            for _ in range(4):
                run()
            torch.cuda.synchronize()
            batches += 4
        took = time.perf_counter() - start
    print(json.dumps({"length": length, "tokensPerSecond": batches * rows * length / took}), flush=True)
