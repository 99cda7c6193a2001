"""A headless Chromium through its WebDriver (W3C WebDriver, Chrome DevTools Protocol for the rest).

These 80 lines need the browser and its driver, and no package. Playwright 1.65 is a wheel of 53 MB, and downloads a browser of
its own; Selenium 4.52 is one of 12 MB beside nine more packages, and needs the same driver.
"""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DRIVER = shutil.which("chromedriver")
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which the standard puts an element's reference."""
ENTER = "\ue007"


class Browser:
    """One page at a time."""

    def __init__(self, server: str) -> None:
        self.server = server
        chrome = {"args": OPTIONS}
        wanted = {"browserName": "chrome", "goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = ""
        self.session = "/session/" + self.ask("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a command: GET without a body, else POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + self.session + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path) -> None:
        self.ask("/url", {"url": page.absolute().as_uri()})

    def run(self, script: str) -> Any:
        """What the body of a JavaScript function returns."""
        return self.ask("/execute/sync", {"script": script, "args": []})

    def find(self, xpath: str) -> str:
        return str(self.ask("/element", {"using": "xpath", "value": xpath})[ELEMENT])

    def click(self, xpath: str) -> None:
        self.ask(f"/element/{self.find(xpath)}/click", {})

    def press(self, xpath: str, keys: str) -> None:
        self.ask(f"/element/{self.find(xpath)}/value", {"text": keys})

    def messages(self) -> list[str]:
        """What the console says since it was last asked: errors and warnings, failed requests among them."""
        return [entry["message"] for entry in self.ask("/se/log", {"type": "browser"})]

    def show(self, *, width: int, dark: bool = False) -> None:
        """As on a screen of this width, in a scheme of colours."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.tools("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tools("Emulation.setEmulatedMedia", {"features": [scheme]})

    def tools(self, command: str, parameters: dict[str, Any]) -> Any:
        return self.ask("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def picture(self, path: Path) -> None:
        """The whole page as a PNG file, to be looked at."""
        shot = self.tools("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    assert DRIVER is not None, "ask DRIVER first"
    process = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        opened = Browser(f"http://127.0.0.1:{port_of(process)}")
        try:
            yield opened
        finally:
            request = urllib.request.Request(opened.server + opened.session, method="DELETE")
            urllib.request.urlopen(request, timeout=60).close()
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()


def port_of(process: "subprocess.Popen[str]") -> int:
    """The port that the driver says it chose."""
    assert process.stdout
    for line in process.stdout:
        if found := re.search(r"successfully on port (\d+)", line):
            return int(found[1])
    raise RuntimeError("the driver ended without a port")
