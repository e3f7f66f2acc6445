"""A headless Chromium that opens a file and says what happened: console, network, layout, and how it looks.

It speaks the DevTools protocol over aiohttp, which Ray brings. Debian's package `chromium` is all that a machine needs.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
STARTS_WITHIN_S = 60.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-features=IsolateSandboxedIframes",  # a sandboxed frame can then be asked from the process of its page
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


@dataclass(kw_only=True)
class Visit:
    """What a page did at one width.

    Attributes:
        console: errors, warnings and exceptions.
        requests: every URL that was asked for beside the page itself and its data.
        answers: of the expressions, in their order.
        picture: PNG of the whole page.
    """

    width: int
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    picture: bytes = b""


def chromium() -> str | None:
    """The browser's path, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def visit(
    address: str,
    *,
    widths: Sequence[int],
    asks: Sequence[str],
    profile: Path,
    frame_ask: str | None = None,
    pictures: bool = False,
    within_s: float = STARTS_WITHIN_S,
) -> list[Visit]:
    """Opens an address at each width.

    Args:
        address: a file:// or http:// URL.
        widths: CSS px; 390 is a phone.
        asks: JavaScript expressions; a promise is waited for.
        profile: an empty folder for the browser.
        frame_ask: an expression for the frames inside the page, asked again until one of them gives a value: the last answer.
        pictures: whether to take a picture of the whole page.
        within_s: how long a page may take at one width, answers included.
    """
    return asyncio.run(_visit(address, widths, asks, profile, frame_ask=frame_ask, pictures=pictures, within_s=within_s))


async def _visit(
    address: str, widths: Sequence[int], asks: Sequence[str], profile: Path, *, frame_ask: str | None, pictures: bool, within_s: float
) -> list[Visit]:
    found = []
    async with _browser(profile) as port, aiohttp.ClientSession() as session:
        for width in widths:
            async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
                target = json.loads(await answer.text())
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                async with asyncio.timeout(within_s):
                    page = _Page(socket, Visit(width=width))
                    found.append(await _open(page, address, asks, frame_ask=frame_ask, pictures=pictures))
    return found


@contextlib.asynccontextmanager
async def _browser(profile: Path) -> AsyncIterator[int]:
    path = chromium()
    if path is None:
        raise RuntimeError("no chromium on this machine")
    with subprocess.Popen(
        [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield await _port(profile / "DevToolsActivePort")
        finally:
            process.terminate()


async def _port(file: Path) -> int:
    async with asyncio.timeout(STARTS_WITHIN_S):
        while not (file.is_file() and file.read_text().strip()):
            await asyncio.sleep(0.05)
    return int(file.read_text().splitlines()[0])


class _Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, visit: Visit) -> None:
        self.visit = visit
        self._socket = socket
        self._numbers = itertools.count(1)
        self.loaded = False

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])
            self._hear(message)

    async def ask_frames(self, expression: str) -> Any:
        """The first true value that a frame of the page gives."""
        while True:
            tree = (await self.call("Page.getFrameTree"))["frameTree"]
            for child in tree.get("childFrames", ()):
                with contextlib.suppress(RuntimeError):  # it is being loaded
                    world = await self.call("Page.createIsolatedWorld", frameId=child["frame"]["id"])
                    context = world["executionContextId"]
                    answer = await self.call("Runtime.evaluate", expression=expression, contextId=context, returnByValue=True)
                    if answer["result"].get("value"):
                        return answer["result"]["value"]
            await asyncio.sleep(0.2)

    async def wait_until_loaded(self) -> None:
        while not self.loaded:
            self._hear(await self._socket.receive_json())

    def _hear(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            self.visit.console.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.visit.console.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded":
            self.visit.console.append(f"{params['entry']['level']}: {params['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            self.visit.requests.append(params["request"]["url"])


async def _open(page: _Page, address: str, asks: Sequence[str], *, frame_ask: str | None, pictures: bool) -> Visit:
    for domain in ("Page", "Runtime", "Log", "Network"):
        await page.call(f"{domain}.enable")
    phone = page.visit.width < 600
    await page.call("Emulation.setDeviceMetricsOverride", width=page.visit.width, height=900, deviceScaleFactor=1, mobile=phone)
    await page.call("Page.navigate", url=address)
    await page.wait_until_loaded()
    for ask in asks:
        answer = await page.call("Runtime.evaluate", expression=ask, awaitPromise=True, returnByValue=True)
        page.visit.answers.append(answer.get("exceptionDetails") or answer["result"].get("value"))
    if frame_ask is not None:
        page.visit.answers.append(await page.ask_frames(frame_ask))
    if pictures:
        shot = await page.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        page.visit.picture = base64.b64decode(shot["data"])
    page.visit.requests = [url for url in page.visit.requests if url != address and not url.startswith("data:")]
    return page.visit
