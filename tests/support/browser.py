"""Drives the demo in a headless Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REQUIRED = "HF_TOKEN_COMPRESS_BROWSER_REQUIRED"
"""Set where a missing browser fails tests instead of skipping them."""

SECONDS = 120
_PROGRAMS = ("chromium", "chromedriver")
_SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def check_browser() -> None:
    """Skip the test without Gradio, selenium, Chromium and its driver; fail where required."""
    if os.environ.get(REQUIRED):
        missing = [name for name in _PROGRAMS if shutil.which(name) is None]
        assert not missing, f"{', '.join(missing)} cannot be found: install Debian's packages."
        return
    for module in ("gradio", "selenium"):
        pytest.importorskip(module, reason=f"needs {module}")
    for name in _PROGRAMS:
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}")


@contextmanager
def served(command: Sequence[str], folder: Path) -> Iterator[str]:
    """Run a program that starts the demo, and stop it after the block; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "GRADIO_SERVER_PORT": port},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    # A program that hangs ends, and with it its output.
    watchdog = threading.Timer(SECONDS, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"Open (http\S+)", line):
                break
        else:
            raise AssertionError("".join(said))
        watchdog.cancel()
        # Read on, or a full pipe holds the program up.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield found[1]
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()


class Page:
    """The demo in a browser of its own.

    Args:
        address: Of the demo.
        profile: Empty folder for the browser's data.
        width: Of the window, in pixels.
    """

    def __init__(self, address: str, profile: Path, width: int = 1280) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        driver = Service(shutil.which("chromedriver") or "")
        self.address, self.width = address, width
        self.browser: Any = webdriver.Chrome(options=options, service=driver)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.browser.get(address)
        self.wait("the examples", lambda: self.find("#image-examples img"))

    def find(self, selector: str) -> list[Any]:
        """Elements that are shown."""
        found = self.browser.find_elements("css selector", selector)
        return [element for element in found if element.is_displayed()]

    def wait(self, what: str, condition: Any) -> Any:
        """Wait for a condition and return what it gives."""
        from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(
            self.browser,
            SECONDS,
            poll_frequency=0.1,
            ignored_exceptions=[StaleElementReferenceException],
        )
        try:
            return waiting.until(lambda browser: condition())
        except TimeoutException:
            raise AssertionError(f"Waited for {what}, but the page says: {self.text()}") from None

    def text(self) -> str:
        """What the place of the answers shows."""
        return " | ".join(element.text for element in self.find("#answers"))

    def take_example(self, modality: str, number: int) -> None:
        """Open a tab, and click an example."""
        self.open_tab(modality)
        examples = self.wait("examples", lambda: self.find(f"#{modality}-examples button"))
        self.click(examples[number])

    def open_tab(self, name: str) -> None:
        """Open the tab with a name, in lower case."""
        (tab,) = [tab for tab in self.find("button[role=tab]") if tab.text.lower() == name]
        self.click(tab)

    def draw_square(self, side: int) -> None:
        """Draw a square with the mouse, around the middle of the canvas."""
        from selenium.webdriver import ActionChains

        (canvas,) = self.wait("the canvas", lambda: self.find("#drawing canvas"))
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        drag = ActionChains(self.browser, duration=50)
        drag.move_to_element_with_offset(canvas, -side // 2, -side // 2).click_and_hold()
        for x, y in ((side, 0), (0, side), (-side, 0), (0, -side)):
            drag.move_by_offset(x, y)
        drag.release().perform()

    def choose(self, name: str, value: str) -> None:
        """Choose a value of a dropdown."""
        (field,) = self.find(f"#{name} input")
        self.click(field)
        options = self.wait("the options", lambda: self.find(f"#{name} [role=option]"))
        self.click(next(option for option in options if option.text.strip() == value))

    def chosen(self, name: str) -> str:
        """The value of a dropdown."""
        (field,) = self.find(f"#{name} input")
        value: str = field.get_attribute("value")
        return value

    def ask(self, question: str) -> None:
        """Type a question, and click the button."""
        (field,) = self.find("#question textarea, #question input")
        field.clear()
        field.send_keys(question)
        self.click(self.find("#ask")[0])

    def click(self, element: Any) -> None:
        """Click an element, wherever it is on the page."""
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def slide(self, share: float) -> None:
        """Click the slider at a share of its length."""
        from selenium.webdriver import ActionChains

        (slider,) = self.find("#percent input[type=range]")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
        across = round((share - 0.5) * slider.size["width"])
        ActionChains(self.browser).move_to_element_with_offset(slider, across, 0).click().perform()

    def card(self, name: str) -> tuple[str, int]:
        """The answer and the visual tokens on a card, "all" or "kept"; empty without one."""
        cards = self.find(f"#answers section.{name}")
        if not cards:
            return "", 0
        answer = cards[0].find_element("css selector", ".answer").text
        figures = dict(re.findall(r"(.+)\n([\d,]+)", cards[0].text))
        return answer, int(figures["Visual tokens"])

    def wait_for_answer(self, answer: str) -> tuple[int, int]:
        """Wait until both cards have this answer; gives their visual tokens, all and kept."""
        self.wait(answer, lambda: self.card("all")[0] == self.card("kept")[0] == answer)
        return self.card("all")[1], self.card("kept")[1]

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        wide: int = self.browser.execute_script("return document.documentElement.scrollWidth")
        return wide - self.width

    def requests_elsewhere(self) -> set[str]:
        """Addresses on the network, other than the demo's, that the browser asked for."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log()]
        sent = (item for item in messages if item["method"] == "Network.requestWillBeSent")
        asked = {item["params"]["request"]["url"] for item in sent}
        return {url for url in asked if url.startswith("http") and self.address not in url}

    def log(self) -> list[dict[str, str]]:
        """What the browser logged since the last call."""
        entries: list[dict[str, str]] = self.browser.get_log("performance")
        return entries
