"""Asks two pods that classify by the clients that users have, and compares what they get with what the reference
implementation said. The arguments are the URL and the folder of a model with one label, and of one with several."""

import json
import math
import pathlib
import sys
import urllib.request

from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

RERANKER, CLASSIFIER = sys.argv[1], sys.argv[3]


def cases(folder):
    found = json.loads((pathlib.Path(folder) / "golden.json").read_text())["cases"]
    return [case for case in found if "pair" in case], [case for case in found if case["text"] and "pair" not in case]


PAIRS, _ = cases(sys.argv[2])
LABELLED_PAIRS, TEXTS = cases(sys.argv[4])


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def sigmoid(number):
    return 1 / (1 + math.exp(-number))


def softmax(numbers):
    powers = [math.exp(number) for number in numbers]
    return [power / sum(powers) for power in powers]


def alike(a, b):
    assert abs(a - b) < 1e-5, (a, b)


def by_llama_index():
    reranker = TextEmbeddingInference(base_url=RERANKER, top_n=2)
    for case in PAIRS:
        texts = [case["pair"], "the cat", "was it in the house?"]
        nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in texts]
        ranked = reranker.postprocess_nodes(nodes, query_bundle=QueryBundle(case["text"]))
        alike(nodes[0].score, sigmoid(case["vector"][0]))
        assert [node.score for node in ranked] == sorted((node.score for node in nodes), reverse=True)[:2]


def by_huggingface_hub():
    for url in [CLASSIFIER, CLASSIFIER + "/predict"]:
        client = InferenceClient(model=url)
        for case in TEXTS:
            shares = softmax(case["vector"])
            # It gives the first element of what it takes for several answers, which is the best label.
            best = client.text_classification(case["text"])
            alike(best.score, max(shares))
            assert best.label == ["bad", "good", "neither"][shares.index(max(shares))], best
    for client in [InferenceClient(model=CLASSIFIER + "/embed"), InferenceClient(model=RERANKER + "/embed")]:
        try:
            client.feature_extraction("a")
        except HfHubHTTPError as error:
            assert error.response.status_code == 424, error
        else:
            raise AssertionError("a model without vectors embeds")


def by_teis_words():
    inputs = [[case["text"], case["pair"]] for case in LABELLED_PAIRS] + [[case["text"]] for case in TEXTS]
    answers = post(CLASSIFIER + "/predict", {"inputs": inputs, "raw_scores": True})
    for case, answer in zip(LABELLED_PAIRS + TEXTS, answers, strict=True):
        assert [label["score"] for label in answer] == sorted((label["score"] for label in answer), reverse=True)
        for label in answer:
            alike(label["score"], case["vector"][["bad", "good", "neither"].index(label["label"])])
    case = PAIRS[0]
    body = {"query": case["text"], "texts": ["the cat", case["pair"]], "raw_scores": True, "return_text": True}
    ranks = post(RERANKER + "/rerank", body)
    assert ranks == post(RERANKER, body) and sorted(rank["index"] for rank in ranks) == [0, 1], ranks
    [rank] = [rank for rank in ranks if rank["index"] == 1]
    alike(rank["score"], case["vector"][0])
    assert rank["text"] == case["pair"], rank
    kinds = [get(url + "/info")["model_type"] for url in [RERANKER, CLASSIFIER]]
    assert [list(kind) for kind in kinds] == [["reranker"], ["classifier"]], kinds


def get(url):
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


for way in [by_llama_index, by_huggingface_hub, by_teis_words]:
    way()
    print("clients: scores", way.__name__.replace("_", " "), "ok")
