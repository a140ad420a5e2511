"""A headless Chromium that opens a page and says what became of it, over the pipe of its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
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
        with self.open(page.absolute().as_uri(), width, dark) as tab:
            looked = tab.evaluate(LOOK)
            own = (page.absolute().as_uri(), "data:")
            asked = [address for address in tab.asked() if not address.startswith(own)]
            return {**looked, "errors": tab.errors(), "asked": asked}

    @contextlib.contextmanager
    def open(self, address: str, width: int = 1280, dark: bool = False) -> Iterator[Tab]:
        """A tab that shows an address, loaded; it is closed at the end."""
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        self._events.clear()
        tab = Tab(self, attached)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 800}
        tab.call("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        tab.call("Page.navigate", url=address)
        self._until(lambda: any(event["method"] == "Page.loadEventFired" for event in self._of(attached)))
        yield tab
        self._call("Target.closeTarget", {"targetId": target})

    def _of(self, attached: str) -> list[dict]:
        """The events of an attached page."""
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


class Tab:
    """A page that a Browser shows."""

    def __init__(self, browser: Browser, attached: str) -> None:
        self._browser, self._attached = browser, attached

    def call(self, method: str, **parameters: object) -> dict:
        """A command of the DevTools protocol, for this page."""
        return self._browser._call(method, parameters, self._attached)

    def evaluate(self, expression: str) -> object:
        """The value of a JavaScript expression; a promise is waited for. Raises AssertionError where it throws."""
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true of the page: it is looked at on every frame."""
        self.evaluate(
            f"new Promise((done, late) => {{ const end = Date.now() + {SECONDS * 500};"
            f"const look = () => {condition} ? done() : Date.now() > end ? late({json.dumps(condition)}) :"
            "setTimeout(look, 20); look(); })"
        )

    def press(self, key: str) -> None:
        """Press and release a key, by its DOM name."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            code = {"Enter": 13, "ArrowRight": 39, "ArrowDown": 40, "ArrowLeft": 37, "ArrowUp": 38}.get(key, 0)
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self, path: Path) -> None:
        """Write what is in sight as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def errors(self) -> list[str]:
        """What the console complained of."""
        errors = []
        for event in self._browser._of(self._attached):
            method, details = event["method"], event["params"]
            if method == "Log.entryAdded" and details["entry"]["level"] in ("warning", "error"):
                errors.append(details["entry"]["text"])
            elif method == "Runtime.exceptionThrown" or (
                method == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning", "assert")
            ):
                errors.append(json.dumps(details))
        return errors

    def asked(self) -> list[str]:
        """The addresses that the page requested."""
        events = self._browser._of(self._attached)
        return [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
