"""Asks a pod, whose URL is the first argument, by the clients that users have, and compares what they get."""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request

import numpy
import openai
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from langchain_openai import OpenAIEmbeddings

URL = sys.argv[1]
TEXTS = ["A cat sat on the mat.", "Ein Kätzchen 🐈", "stocks fell"]
LONG = "word " * 1000


def post(path, body):
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


EXPECTED = numpy.array(post("/embed", {"inputs": TEXTS}))


def alike(vectors, expected=EXPECTED):
    vectors = numpy.array(vectors)
    assert vectors.shape == expected.shape, (vectors.shape, expected.shape)
    assert numpy.abs(vectors - expected).max() < 1e-5, numpy.abs(vectors - expected).max()


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"it is not refused with {kind}")


def by_openai():
    client = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0)
    # Without a format this client asks for base 64.
    answer = client.embeddings.create(input=TEXTS, model="minilm", user="somebody")
    alike([item.embedding for item in answer.data])
    assert [item.index for item in answer.data] == [0, 1, 2] and answer.model == "minilm"
    tokens = post("/tokenize", {"inputs": TEXTS})
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, tokens))
    answer = client.embeddings.create(input=TEXTS, model="minilm", encoding_format="float")
    alike([item.embedding for item in answer.data])
    ids = [[token["id"] for token in text] for text in tokens]
    alike([item.embedding for item in client.embeddings.create(input=ids, model="minilm").data])
    alike([client.embeddings.create(input=ids[0], model="minilm").data[0].embedding], EXPECTED[:1])
    cut = client.embeddings.create(input=TEXTS[0], model="minilm", dimensions=8, extra_body={"input_type": "query"})
    alike([cut.data[0].embedding], EXPECTED[:1, :8] / numpy.linalg.norm(EXPECTED[0, :8]))
    client.embeddings.create(input=LONG, model="minilm")
    assert [model.id for model in client.models.list()] == ["minilm"]

    error = refused(openai.BadRequestError, lambda: client.embeddings.create(input="", model="minilm"))
    assert (error.param, error.code, error.type) == ("input", "invalid_request", "invalid_request_error"), error
    error = refused(
        openai.BadRequestError,
        lambda: client.embeddings.create(input=LONG, model="minilm", extra_body={"truncate": False}),
    )
    assert (error.param, error.code) == ("input", "context_length_exceeded"), error
    error = refused(openai.BadRequestError, lambda: client.embeddings.create(input="a", model="m", dimensions=9999))
    assert error.param == "dimensions", error
    refused(openai.APIStatusError, lambda: client.embeddings.create(input="a" * (5 << 20), model="minilm"))


def by_huggingface_hub():
    for url in [URL, URL + "/embed"]:
        client = InferenceClient(model=url)
        alike([client.feature_extraction(text)[0] for text in TEXTS])
    alike(client.feature_extraction(TEXTS, normalize=True, truncate=True, truncation_direction="Left"))
    prompted = client.feature_extraction(TEXTS[0], prompt_name="query")
    alike(prompted, EXPECTED[:1])
    error = refused(HfHubHTTPError, lambda: client.feature_extraction(LONG, truncate=False))
    assert error.response.status_code == 413, error
    cosines = InferenceClient(model=URL + "/similarity").sentence_similarity(TEXTS[0], other_sentences=TEXTS)
    alike(cosines, EXPECTED @ EXPECTED[0])


def by_langchain():
    # Without `check_embedding_ctx_length=False` it would send token ids of OpenAI's own vocabulary.
    client = OpenAIEmbeddings(
        base_url=URL + "/v1", api_key="none", model="minilm", check_embedding_ctx_length=False
    )
    alike(client.embed_documents(TEXTS))
    alike([client.embed_query(TEXTS[1])], EXPECTED[1:2])


def by_plain_gets():
    text = urllib.parse.quote(TEXTS[1])
    for path in [f"/?content={text}", f"/get_vector_simple?sentence={text}", f"/get_vector_async?sentence={text}"]:
        with urllib.request.urlopen(URL + path) as answer:
            alike([json.load(answer)["vector"]], EXPECTED[1:2])


def by_teis_words():
    ids = [token["id"] for token in post("/tokenize", {"inputs": TEXTS[0]})[0]]
    alike(post("/embed", {"inputs": [ids, TEXTS[1]]}), EXPECTED[:2])
    assert post("/decode", {"ids": ids}) == ["a cat sat on the mat."]
    # This model's vector is the mean of those of its tokens, brought to length one.
    means = numpy.array([numpy.mean(tokens, axis=0) for tokens in post("/embed_all", {"inputs": TEXTS})])
    alike(means / numpy.linalg.norm(means, axis=1, keepdims=True))
    error = refused(urllib.error.HTTPError, lambda: post("/rerank", {"query": "a", "texts": ["b"]}))
    assert error.code == 424 and json.load(error)["error"] == "model is not a re-ranker model"
    error = refused(urllib.error.HTTPError, lambda: post("/embed", {"inputs": LONG, "truncate": False}))
    assert error.code == 413 and json.load(error)["error_type"] == "Validation"


for way in [by_openai, by_huggingface_hub, by_langchain, by_plain_gets, by_teis_words]:
    way()
    print("clients:", way.__name__.replace("_", " "), "ok")
