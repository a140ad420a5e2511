"""A headless Chromium that opens a page and says what became of it, over the pipe of its DevTools protocol."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next((path for name in NAMES if (path := shutil.which(name))), None)
SANDBOX = () if os.geteuid() else ("--no-sandbox",)  # Chromium refuses root otherwise
OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
)
SECONDS = 90  # for a page; a loaded machine takes long to start Chromium
LOOK = """
Promise.all([...document.images].map(image => image.decode().then(() => image.naturalWidth, () => 0))).then(widths => {
  const cells = [...document.querySelectorAll("td, tbody th")];
  for (const box of document.querySelectorAll(".scroll")) box.scrollLeft = box.scrollWidth;
  return {
    widths, title: document.title, wide: document.documentElement.scrollWidth,
    drawings: document.querySelectorAll("svg").length, background: getComputedStyle(document.body).backgroundColor,
    smallest: Math.min(...cells.map(cell => parseFloat(getComputedStyle(cell).fontSize))),
    labelled: cells.filter(cell => cell.matches("th")).every(label => label.getBoundingClientRect().left >= 0),
  };
})
"""


class Browser:
    """One Chromium; a context manager. `folder`: where it may keep its profile."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._number, self._rest, self._events = folder, 0, b"", []

    def __enter__(self) -> Browser:
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        profile = f"--user-data-dir={self.folder}"
        # Chromium reads commands from file descriptor 3 and answers to 4
        shell = ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "bash"]
        self._process = subprocess.Popen(
            [*shell, PROGRAM, *SANDBOX, *OPTIONS, profile, "about:blank"],
            pass_fds=(read, write),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        return self

    def __exit__(self, *_) -> None:
        self._send("Browser.close", {}, None)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def visit(self, page: Path, width: int = 390, dark: bool = False) -> dict:
        """Open a file as a screen of this width shows it.

        Returns widths (of each image, 0 for one that cannot be decoded), title, wide (of the page in pixels), drawings
        (how many SVGs), background, smallest (height of the letters in tables, in pixels), labelled (whether the rows'
        labels stay in sight when tables are scrolled to their ends), errors (what the console complained of) and asked
        (addresses that were requested and are neither the file nor in it).
        """
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        self._events.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable", {}, attached)
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 800}
        self._call("Emulation.setDeviceMetricsOverride", screen, attached)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", {"features": [scheme]}, attached)
        self._call("Page.navigate", {"url": page.absolute().as_uri()}, attached)
        self._until(lambda: any(event["method"] == "Page.loadEventFired" for event in self._of(attached)))
        looked = {"expression": LOOK, "awaitPromise": True, "returnByValue": True}
        found = self._call("Runtime.evaluate", looked, attached)["result"]["value"]
        self._call("Target.closeTarget", {"targetId": target})
        errors, asked = [], []
        for event in self._of(attached):
            method, said = event["method"], event["params"]
            if method == "Log.entryAdded" and said["entry"]["level"] in ("warning", "error"):
                errors.append(said["entry"]["text"])
            elif method == "Runtime.exceptionThrown" or (
                method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert")
            ):
                errors.append(json.dumps(said))
            elif method == "Network.requestWillBeSent":
                asked.append(said["request"]["url"])
        own = (page.absolute().as_uri(), "data:")
        return {**found, "errors": errors, "asked": [address for address in asked if not address.startswith(own)]}

    def _of(self, attached: str) -> list[dict]:
        """The events of the page that this session is attached to."""
        return [event for event in self._events if event.get("sessionId") == attached]

    def _send(self, method: str, parameters: dict, attached: str | None) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._write, json.dumps(message | ({"sessionId": attached} if attached else {})).encode() + b"\0")
        return self._number

    def _call(self, method: str, parameters: dict, attached: str | None = None) -> dict:
        number, answers = self._send(method, parameters, attached), []
        self._until(lambda: bool(answers), lambda message: message.get("id") == number and answers.append(message))
        if "error" in answers[0]:
            raise RuntimeError(f"Chromium refuses {method}: {answers[0]['error']['message']}")
        return answers[0]["result"]

    def _until(self, done: Callable[[], bool], answer: Callable[[dict], object] = lambda _: None) -> None:
        """Take messages until done() is true; events are kept, answers go to `answer`."""
        end = time.monotonic() + SECONDS
        while not done():
            if not select.select([self._read], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError(f"Chromium said nothing for {SECONDS} s")
            raw = os.read(self._read, 1 << 16)
            if not raw:
                raise RuntimeError(f"Chromium ended with status {self._process.wait()}")
            *whole, self._rest = (self._rest + raw).split(b"\0")
            for message in map(json.loads, whole):
                if "method" in message:
                    self._events.append(message)
                else:
                    answer(message)
