"""A headless Chromium, driven over a pipe by the DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/: JSON messages, each ended by a NUL, on the
file descriptors 3 and 4 of `--remote-debugging-pipe`. No port, no WebSocket.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

READY_S = 60.0


class Chromium:
    """One browser with one page."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._numbers = itertools.count(1)
        self._session = ""
        self._pending = b""
        self.console: list[str] = []

    def __enter__(self) -> Chromium:
        self._home.mkdir(parents=True, exist_ok=True)
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()
        command = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--remote-debugging-pipe", "--lang=en-US",
            f"--user-data-dir={self._home / 'profile'}", "about:blank",
        ]  # fmt: skip
        with (self._home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", f'exec "$@" 3<&{their_in} 4>&{their_out}', "chromium", *command],
                pass_fds=(their_in, their_out), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env={**os.environ, "HOME": str(self._home)},
            )  # fmt: skip
        os.close(their_in)
        os.close(their_out)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        # All of its processes are in the session that was begun for it.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol, and its result.

        Raises:
            AssertionError: the browser says no, ends, or does not answer.
        """
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + READY_S
        while True:
            answer = self._next(deadline, method)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            if answer.get("method") == "Runtime.exceptionThrown":
                thrown = answer["params"]["exceptionDetails"]
                told = thrown.get("exception", {}).get("description", thrown["text"])
                self.console.append(told[:2000])

    def _next(self, deadline: float, what: str) -> Any:
        while b"\0" not in self._pending:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"Chromium did not answer: {what}; {self.log()}"
            readable, _, _ = select.select([self._in], [], [], left_s)
            if readable:
                got = os.read(self._in, 1 << 20)
                assert got, f"Chromium ended: {self.log()}"
                self._pending += got
        message, _, self._pending = self._pending.partition(b"\0")
        return json.loads(message)

    def log(self) -> str:
        """The end of what it said."""
        return (self._home / "log").read_text(errors="replace")[-2000:]

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def open(self, url: str, width: int, height: int) -> None:
        """Load an address in a window of this size."""
        self.console.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.call("Page.navigate", url=url)

    def wait_for(self, script: str, what: str) -> Any:
        """The first true value of an expression."""
        deadline = time.monotonic() + READY_S
        while not (value := self.evaluate(script)):
            assert time.monotonic() < deadline, f"{what}; {self.console}"
            time.sleep(0.05)
        return value

    def picture(self, width: int, height: int) -> bytes:
        """The page as a PNG."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.call(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
        )
        return base64.b64decode(shot["data"])
