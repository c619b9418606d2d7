"""Pages as a parser reads them, and as a browser without a window shows them."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "link", "br", "path", "use"}


class Reader(HTMLParser):
    """Collects tags and texts, and fails at a tag that is closed and was not open."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts, self.links = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


# measures the page in a frame of a width that a window cannot have, and leaves what it found in the document
MEASURE = """<!DOCTYPE html><html><head><link rel="icon" href="data:,"></head><body>
<iframe id="frame" style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe><pre id="found"></pre><script>
document.getElementById("frame").onload = function () {{
  const page = document.getElementById("frame").contentDocument, root = page.documentElement;
  const size = (e) => {{ const r = e.getBoundingClientRect(); return [r.width, r.height, r.left, r.right]; }};
  const shown = [...page.querySelectorAll("svg")].filter((e) => e.getClientRects().length);
  const letters = shown.flatMap((svg) => [...svg.querySelectorAll("text")].map((e) => ({{
    size: parseFloat(getComputedStyle(e).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width,
    out: Math.max(e.getBoundingClientRect().right - svg.getBoundingClientRect().right,
      svg.getBoundingClientRect().left - e.getBoundingClientRect().left), text: e.textContent }})));
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.clientWidth, scroll: Math.max(root.scrollWidth, page.body.scrollWidth), svgs: shown.map(size),
    shapes: shown.map((e) => e.parentElement.className), letters: letters,
    boxes: [...page.querySelectorAll(".box")].map(size), ground: getComputedStyle(page.body).backgroundColor,
    ink: getComputedStyle(page.body).color, panel: getComputedStyle(page.querySelector(".panel")).backgroundColor }});
}};
</script></body></html>"""


def browse(folder, document, *options):
    """Let a browser without a window open a document; return the document as it was in the end, and the log."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    place = folder / "wrapper.html"
    place.write_text(document, encoding="utf-8")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += [*quiet, f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--window-size=1400,1000"]
    command += ["--virtual-time-budget=10000", *options, "--dump-dom", place.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, ended.stderr


def measured(folder, page, width, *options):
    dom, log = browse(folder, MEASURE.format(width=width, page=html.escape(page)), *options)
    text = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)[1]
    console = [line for line in log.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(text)), console
