"""Opens the page of a pod, whose URL is the first argument, in a headless Chromium and compares texts on it. A second
argument names a folder for pictures of it."""

import base64
import json
import pathlib
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

URL = sys.argv[1]
PICTURES = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
TEXTS = ["a cat", "a kitten", "the stock market", "<b>bold</b> & \"quoted\""]


class Browser:
    """As much of WebDriver as this needs."""

    def __init__(self, port, *arguments):
        self.root = f"http://127.0.0.1:{port}"
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1100,900", *arguments]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = f"/session/{self.begin({'capabilities': {'alwaysMatch': wanted}})['sessionId']}"

    def begin(self, wanted, tries=3):
        """Starts Chromium, which its driver waits for a minute and no longer: on a busy machine it may come up the next time."""
        try:
            return self.call("POST", "/session", wanted)
        except urllib.error.HTTPError as error:
            if tries == 1:
                raise AssertionError(error.read()) from error
            return self.begin(wanted, tries - 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Without this Chromium would outlive its driver.
        self.call("DELETE", self.session)

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)["value"]

    def post(self, path, body):
        return self.call("POST", self.session + path, body)

    def run(self, script, *arguments):
        return self.post("/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script):
        for _ in range(3000):
            if found := self.run(script):
                return found
            time.sleep(0.1)
        raise AssertionError(f"this does not come true: {script}")

    def click(self):
        button = self.post("/element", {"using": "css selector", "value": "#go"})
        self.post(f"/element/{next(iter(button.values()))}/click", {})


def luminance(colour):
    part = [int(x) / 255 for x in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in part]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(cell):
    dim, bright = sorted([luminance(cell["ink"]), luminance(cell["back"])])
    return (bright + 0.05) / (dim + 0.05)


def compare(browser):
    browser.post("/url", {"url": URL + "/ui"})
    browser.wait("return document.getElementById('model').textContent.startsWith('minilm')")
    browser.run("document.getElementById('texts').value = arguments[0]", "only one")
    browser.click()
    assert browser.wait("return document.getElementById('status').className === 'bad'")
    browser.run("document.getElementById('texts').value = arguments[0]", "\n".join(TEXTS))
    browser.click()
    cells = browser.wait(
        """const cells = [...document.querySelectorAll('tbody td')];
        return cells.length && cells.map(cell => {
          const style = getComputedStyle(cell);
          return { text: cell.textContent, back: style.backgroundColor, ink: style.color };
        });"""
    )
    rows = browser.run("return [...document.querySelectorAll('tbody th')].map(head => head.textContent)")
    assert rows == [f"{i + 1} {text}" for i, text in enumerate(TEXTS)], rows
    values = [float(cell["text"]) for cell in cells]
    assert len(values) == 16 and all(values[5 * i] == 1 for i in range(4)), values
    assert values[1] == values[4] and values[1] > 0.5 > values[2], values
    # Each is read on its colour, as WCAG's level AA has it.
    assert min(map(contrast, cells)) >= 4.5, sorted(map(contrast, cells))
    messages = browser.call("POST", browser.session + "/se/log", {"type": "browser"})
    assert not messages, messages


driver = subprocess.Popen(["chromedriver", "--port=0", "--log-level=SEVERE"], stdout=subprocess.PIPE, text=True)
try:
    # It says at which of its choice it listens, and little more.
    said = iter(driver.stdout.readline, "")
    port = next(int(found[1]) for line in said if (found := re.search(r"successfully on port (\d+)", line)))
    for name, arguments in [("light", []), ("dark", ["--blink-settings=preferredColorScheme=0"])]:
        with Browser(port, *arguments) as browser:
            compare(browser)
            dark = browser.run("return matchMedia('(prefers-color-scheme: dark)').matches")
            assert dark == (name == "dark"), dark
            if PICTURES:
                picture = browser.call("GET", browser.session + "/screenshot")
                (PICTURES / f"{name}.png").write_bytes(base64.b64decode(picture))
        print("clients: the page in", name, "colours ok")
finally:
    driver.terminate()
    driver.wait()
