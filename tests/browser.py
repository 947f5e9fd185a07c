"""Debian's chromium without a window, driven through its own protocol over two pipes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = shutil.which("chromium")
FLAGS = "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --disable-dev-shm-usage --no-first-run --disable-extensions --remote-debugging-pipe"
FACTS = """({
  width: document.documentElement.scrollWidth, view: innerWidth, height: document.documentElement.scrollHeight,
  verdict: document.querySelector('.verdict').getBoundingClientRect().bottom,
  sentence: document.querySelector('.sentence').getBoundingClientRect().bottom,
  paper: getComputedStyle(document.documentElement).backgroundColor,
  ink: getComputedStyle(document.documentElement).color,
  images: document.images.length,
  broken: [...document.images].filter(i => !i.complete || !i.naturalWidth).length,
  beyond: [...document.querySelectorAll('body *')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.right > innerWidth + 0.5 && !e.closest('.scroll') && !e.parentElement.closest('.clip') && box.width;
  }).map(e => e.tagName + '.' + (e.getAttribute('class') || '')),
  covered: [...document.querySelectorAll('svg.arms')].flatMap(svg => {
    const texts = [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]).filter(([, box]) => box.width);
    return texts.flatMap(([one, a], i) => texts.slice(i + 1).filter(([, b]) =>
      a.left < b.right && b.left < a.right && a.top < b.bottom - 4 && b.top < a.bottom - 4).map(([other]) => one + ' / ' + other));
  }),
  marked: window.marked === undefined ? null : window.marked
})"""


class Browser:
    """One page at a time; a context manager.

    Args:
        folder: for its profile.
    """

    def __init__(self, folder: Path) -> None:
        assert PROGRAM is not None
        (asked, self._ask), (self._hear, told) = os.pipe(), os.pipe()
        os.set_inheritable(asked, True)
        os.set_inheritable(told, True)
        command = f"exec 3<&{asked} 4>&{told}; exec {PROGRAM} {FLAGS} --user-data-dir={folder} about:blank"
        self._process = subprocess.Popen(["bash", "-c", command], pass_fds=(asked, told), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(asked)
        os.close(told)
        self._rest, self._count, self.events = b"", 0, []  # type: tuple[bytes, int, list[dict[str, Any]]]
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.page(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._ask)
        os.close(self._hear)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come in between are kept."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._ask, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._message()
            if heard.get("id") == self._count:
                assert "error" not in heard, heard["error"]
                return dict(heard["result"])
            self.events.append(heard)

    def page(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command to the page."""
        return self.call(method, self._session, **params)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._hear, 1 << 20)
            assert piece, "chromium ended"
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))

    def open(self, file: Path, width: int, height: int, *, dark: bool) -> dict[str, Any]:
        """Open a file at this size in CSS pixels and return what the page is like; `errors` are the browser's complaints."""
        self.page("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.page("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.events.clear()
        self.page("Page.navigate", url=file.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())
        found = self.page("Runtime.evaluate", expression=FACTS, returnByValue=True)["result"]["value"]
        wrong = ("Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")
        asked = [e["params"]["request"]["url"][:60] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        fetched = [url for url in asked if not url.startswith(("file:", "data:"))]
        return {**found, "errors": [event["params"] for event in self.events if event.get("method") in wrong], "fetched": fetched}

    def picture(self, file: Path, *, whole: bool = True) -> None:
        """Write a PNG of the page."""
        found = self.page("Page.captureScreenshot", captureBeyondViewport=whole, **({"clip": self._clip()} if whole else {}))
        file.write_bytes(base64.b64decode(found["data"]))

    def _clip(self) -> dict[str, Any]:
        size = self.page("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
