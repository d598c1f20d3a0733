"""Runs a gateway, whose program is the first argument, before an API server and pods that are made up, and asks it by
OpenAI's client: what does that make of each refusal, and how often does it try?"""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import httpx
import openai

SPACE = {"digest": "sha256:" + "0" * 64, "dimension": 2, "maxTokens": 256}
INFO = {"model_id": "m", "max_input_length": 256, "version": "0", "space": SPACE}
VECTORS = {
    "object": "list",
    "model": "m",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def tell(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Pod(Handler):
    """Answers all alike, but breaks off at one kind of text, and at the first of another."""

    def do_GET(self):
        self.tell(INFO)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert "authorization" not in self.headers or asked["model"] != "team/closed", "it learnt a key"
        if asked["input"] == "poison" or asked["input"] == "stumble" and not self.server.stumbled:
            self.close_connection = self.server.stumbled = True
            return
        self.tell(VECTORS)


def serve(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads, server.stumbled = True, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def service(name, keys=(), **spec):
    return {
        "apiVersion": "kembed.dev/v1alpha1",
        "kind": "EmbeddingService",
        "metadata": {"namespace": "team", "name": name, "resourceVersion": "1"},
        "spec": {"model": {"uri": "hf://a/b"}, "replicas": 1, "traffic": {"apiKeys": list(keys)}, **spec},
        "status": {"space": SPACE},
    }


def pod(of, port):
    labels = {"app.kubernetes.io/managed-by": "kembed", "kembed.dev/service": of}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "team", "name": of, "uid": of, "resourceVersion": "1", "labels": labels},
        "spec": {"containers": [{"name": "inference-pod", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def api_server(services, pods):
    class ApiServer(Handler):
        def do_GET(self):
            if "watch=true" in self.path:
                threading.Event().wait()
            kind, items = ("EmbeddingService", services) if "embeddingservices" in self.path else ("Pod", pods)
            version = items[0]["apiVersion"]
            self.tell({"apiVersion": version, "kind": kind + "List", "metadata": {"resourceVersion": "1"}, "items": items})

    return serve(ApiServer)


def make_key(program, *flags):
    """A key, and what the spec lists of it; what is printed is YAML of one field a line."""
    key, _, snippet = subprocess.check_output([program, "apikey", *flags], text=True).partition("\n")
    fields = [line.strip(" -").partition(": ") for line in snippet.splitlines() if ": " in line]
    listed = {name: value for name, _, value in fields if name in ("name", "sha256", "requestsPerSecond", "tokensPerMinute")}
    return key, {name: int(value) if name.endswith(("Second", "Minute")) else value for name, value in listed.items()}


def own_address():
    """An address of this machine that nobody else takes, with all of its ports: a port that is free on a shared one may be
    taken before the gateway listens."""
    high, low = divmod(os.getpid() % 65536, 256)
    return f"127.{high}.{low}.3"


class Asking:
    """OpenAI's client with a key, which tells how often it tried."""

    def __init__(self, url, key, **options):
        self.tries = 0
        counted = httpx.Client(event_hooks={"request": [self.count]})
        self.client = openai.OpenAI(base_url=url, api_key=key, http_client=counted, **options)

    def count(self, _):
        self.tries += 1

    def embed(self, model, text="a"):
        answer = self.client.embeddings.create(input=text, model=model, encoding_format="float")
        assert answer.data[0].embedding == [0.5, 0.25], answer

    def refused(self, kind, code, tries, model, text="a"):
        self.tries = 0
        try:
            self.embed(model, text)
        except kind as error:
            assert (error.code, self.tries) == (code, tries), (error, self.tries)
            return error
        raise AssertionError(f"{model} is not refused with {kind}")


def impatient(asking):
    """What it is told when it asks for more than it may and does not wait."""
    for _ in range(1000):
        try:
            asking.embed("team/closed")
        except openai.RateLimitError as error:
            assert error.type == "requests", error
            return error.code
    raise AssertionError("it is never refused")


def ask(url, key, slow_key):
    stranger, holder = Asking(url, "none"), Asking(url, key)
    # A key that nobody knows, and a service that nobody knows: no second try would help.
    for model in ["team/closed", "team/nothing", "text-embedding-3-small"]:
        stranger.refused(openai.AuthenticationError, "invalid_api_key", 1, model)
    holder.refused(openai.NotFoundError, "model_not_found", 1, "team/nothing")
    holder.embed("team/closed")
    stranger.embed("team/open")
    assert [model.id for model in stranger.client.models.list()] == ["team/absent", "team/off", "team/open"]
    assert [model.id for model in holder.client.models.list()] == ["team/absent", "team/closed", "team/off", "team/open"]
    azure = openai.AzureOpenAI(base_url=url, api_key=key, api_version="1")
    assert azure.embeddings.create(input="a", model="team/closed", encoding_format="float").data

    # More than the key may send: it waits as it is told, and then gets its answer. On a slow machine that takes some requests.
    slow, asked = Asking(url, slow_key), 0
    while slow.tries == asked:
        assert asked < 1000, "it is never told to wait"
        began, asked = time.monotonic(), asked + 1
        slow.embed("team/closed")
    assert slow.tries == asked + 1 and time.monotonic() - began >= 1, (asked, slow.tries, time.monotonic() - began)
    assert impatient(Asking(url, slow_key, max_retries=0)) == "rate_limit_exceeded"

    # What may pass is tried again, and what will not is not.
    stranger.refused(openai.InternalServerError, "Off", 1, "team/off")
    once_more = Asking(url, "none", max_retries=1)
    began = time.monotonic()
    once_more.refused(openai.InternalServerError, "Starting", 2, "team/absent")
    assert time.monotonic() - began >= 5, "Retry-After is 5"
    # A pod that breaks off once is asked again by the gateway itself; what kills pods is not sent to one after the other.
    once_more.tries = 0
    once_more.embed("team/open", "stumble")
    assert once_more.tries == 1, once_more.tries
    once_more.refused(openai.InternalServerError, "pods_died", 1, "team/open", "poison")
    stranger.refused(openai.APIStatusError, "body_too_large", 1, "team/open", "x" * 100_000)


def main(program):
    pods = serve(Pod)
    key, listed = make_key(program, "--name", "quick")
    slow_key, slow_listed = make_key(program, "--name", "slow", "--requests-per-second", "1")
    absent = service("absent", traffic={"queueTimeout": "1s"})
    services = [service("closed", [listed, slow_listed]), service("open"), service("off", replicas=0), absent]
    api = api_server(services, [pod("closed", pods.server_port), pod("open", pods.server_port)])
    with tempfile.TemporaryDirectory() as work:
        config, log = pathlib.Path(work, "kubeconfig"), pathlib.Path(work, "log")
        named = lambda kind, content: [{"name": "test", kind: content}]
        cluster = {"server": f"http://127.0.0.1:{api.server_port}"}
        config.write_text(
            json.dumps(
                {
                    "clusters": named("cluster", cluster),
                    "users": named("user", {}),
                    "contexts": named("context", {"cluster": "test", "user": "test"}),
                    "current-context": "test",
                }
            )
        )
        listen, health, internal = (f"{own_address()}:{port}" for port in (20000, 20001, 20002))
        flags = [f"--listen={listen}", f"--health-listen={health}", f"--internal-listen={internal}"]
        flags += ["--access-log", "--body-limit=65536", "--drain-delay=0s"]
        environment = {"KUBECONFIG": str(config), "KEMBED_LOG": "debug"}
        with log.open("w") as output:
            gateway = subprocess.Popen([program, "gateway", *flags], env=environment, stderr=output)
        try:
            until_ready(f"http://{health}/health/ready", gateway)
            until_proven(log)
            ask(f"http://{listen}/v1", key, slow_key)
        except BaseException:
            print(log.read_text(), file=sys.stderr)
            raise
        finally:
            gateway.terminate()
            assert gateway.wait(300) == 0
        lines = log.read_text()
        for private in [key, slow_key, "poison", listed["sha256"]]:
            assert private not in lines, f"{private} is in the log"
        assert 'service=team/closed key="quick" status=200' in lines, lines


def until_ready(url, gateway):
    for _ in range(3000):
        try:
            return urllib.request.urlopen(url).close()
        except (urllib.error.URLError, ConnectionError):
            assert gateway.poll() is None, "the gateway ended"
            time.sleep(0.1)
    raise AssertionError("the gateway does not get ready")


def until_proven(log):
    """Waits until both pods have told their space."""
    for _ in range(3000):
        if log.read_text().count("a pod told its vector space") == 2:
            return
        time.sleep(0.1)
    raise AssertionError("the gateway does not ask the pods")


main(sys.argv[1])
print("clients: the gateway by openai ok")
