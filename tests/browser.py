"""A page in headless Chromium, driven by the DevTools protocol over a pipe: no port, and no request leaves unseen."""

import base64
import json
import math
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
LOCAL = ("file:", "data:", "blob:")


class Browser:
    """One tab. Use it in a `with`; `folder` takes its profile."""

    def __init__(self, folder: Path, timeout_s: float = 60):
        self.timeout_s, self.events, self._number, self._rest = timeout_s, [], 0, b""
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # Chromium reads commands from file 3 and writes answers to file 4.
        command = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write} 2>/dev/null'
        profile = f"--user-data-dir={folder / 'profile'}"
        self._process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, *QUIET, profile, "--remote-debugging-pipe", "about:blank"],
            pass_fds=(to_read, to_write),
        )
        os.close(to_read)
        os.close(to_write)
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(self.timeout_s)
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, **params: Any) -> dict:
        """Send a command and return its result; events that come meanwhile are kept in `events`."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": params, **session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _next(self) -> dict:
        ends = time.monotonic() + self.timeout_s
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(ends - time.monotonic(), 0))[0]:
                raise TimeoutError("Chromium does not answer")
            if not (more := os.read(self._read, 1 << 20)):
                raise RuntimeError("Chromium has ended")
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a page, and wait until it has loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        loader = self.call("Page.navigate", url=url).get("loaderId")  # none where only the #anchor is another
        while loader and not any(self._has_loaded(event, loader) for event in self.events):
            self.events.append(self._next())

    @staticmethod
    def _has_loaded(event: dict, loader: str) -> bool:
        """Say whether an event is that of this page's end, and not of a page before."""
        what = (event.get("method"), event.get("params", {}).get("name"), event.get("params", {}).get("loaderId"))
        return what == ("Page.lifecycleEvent", "load", loader)

    def run(self, script: str, **where: int) -> Any:
        """Return the value of an expression in the page, or in `contextId` of `frame`; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, **where)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", script))
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until an expression is true, in this page or in the one that a click leads to."""
        ends = time.monotonic() + self.timeout_s
        while not self.run(f"Boolean({script})"):
            if time.monotonic() > ends:
                raise TimeoutError(f"it never became true: {script}")
            time.sleep(0.05)

    @property
    def frame(self) -> dict[str, int]:
        """Where `run` is to run in the innermost frame of the page."""
        made = [each["params"] for each in self.events if each.get("method") == "Runtime.executionContextCreated"]
        return {"contextId": made[-1]["context"]["id"]}

    def press(self, key: str, text: str = "") -> None:
        """Press a key on whatever has the focus."""
        code = {"Tab": 9, "Enter": 13, " ": 32}[key]
        typed = {"text": text} if text else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed)

    def choose(self, name: str, value: str) -> None:
        """Set a filter of the explorer, as a person does."""
        select_it = f"document.querySelector('#table select[data-filter={name}]')"
        self.run(f"(s => {{ s.value = {json.dumps(value)}; s.dispatchEvent(new Event('change')); }})({select_it})")

    def picture(self, path: Path, selector: str = "header") -> None:
        """Save what an element looks like as PNG; it is scrolled to first, for figures are laid out only then."""
        element = f"document.querySelector({json.dumps(selector)})"
        height = math.ceil(self.run(f"{element}.getBoundingClientRect().height")) + 100
        size = {"width": self.run("innerWidth"), "height": height}
        self.call("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)
        self.run(f"{element}.scrollIntoView()")
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        box = "(r => ({x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height, scale: 1}))"
        clip = self.run(f"{box}({element}.getBoundingClientRect())")
        shot = self.call("Page.captureScreenshot", clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and exceptions, since the page was opened; not what it logs."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        found = [event["params"] for event in self.events if event.get("method") in kinds]
        return [json.dumps(each) for each in found if each.get("type") != "log"]

    @property
    def requests(self) -> list[str]:
        """The addresses that the page asked for, those of this machine's files apart."""
        asked = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in asked if not each["request"]["url"].startswith(LOCAL)]
