"""The page in a real browser: Debian's Chromium without a screen, driven by its own driver."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service

from acclimate.serve.client import Client
from acclimate.serve.examples import ANSWERS
from acclimate.serve.page import router

from .live import listening, serving
from .served import TOKEN, images

FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1200,900"""
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><b>\"'&amp;{{style}}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if None in found.values():
        pytest.skip("no chromium and chromedriver here; Debian: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(found["chromium"])
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    try:
        driver = webdriver.Chrome(options=options, service=Service(str(found["chromedriver"])))
    except WebDriverException as error:
        pytest.skip(f"chromium does not start here: {error.msg}")
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Client]]:
    """Three streams: one that learns, one that is held, one that is frozen."""
    with serving() as (address, _), Client(address, TOKEN) as client:
        for seed in range(6):
            client.predict("line-3", images(seed))
        client.predict("black", torch.zeros(4, 3, 8, 8))
        client.predict("gate", images(0))
        client.freeze("gate")
        yield address, client


class Page:
    """What a test does with a page and looks for on it."""

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self.driver = driver
        driver.get_log("browser")
        driver.get("about:blank")
        driver.get(address)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        end = time.monotonic() + seconds
        while True:
            try:
                if found := condition():
                    return found
            except WebDriverException:  # it was being drawn anew
                pass
            assert time.monotonic() < end, self.driver.find_element("tag name", "body").text
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        def clicked() -> bool:
            self.all(selector)[0].click()
            return True

        self.until(lambda: self.all(selector))
        self.until(clicked)

    def facts(self) -> dict[str, str]:
        return dict(zip(self.texts(".numbers dt"), self.texts(".numbers dd"), strict=True))

    def complaints(self) -> list[str]:
        """What the browser itself objects to: errors of the script, and what the policy has stopped."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def test_streams_and_plots_are_shown(browser, server):
    address, client = server
    page = Page(browser, f"{address}/#line-3")
    page.until(lambda: page.all("figure") and len(page.all("#streams button")) == 3)
    shown = dict(zip(page.texts("#streams .id"), page.texts("#streams .state"), strict=True))
    assert shown == {line["stream"]: line["state"] for line in client.streams()}
    assert shown["gate"] == "frozen"
    assert next(iter(shown)) == "black", "the one in trouble comes first"
    status = client.status("line-3")
    facts = page.facts()
    assert facts["version"] == str(status["version"])
    assert facts["updates"] == str(status["updates"])

    points = status["history"]
    guards = set(status["signals"]) & {"evidence", "gain"}
    assert guards, "what the guard tells is plotted too"
    for name in ("entropy", "distance", "held", *guards):
        assert len(drawn(page, name)) == len(points)
        ticks = page.all(f"svg[data-quantity={name}] .updated")
        assert len(ticks) == sum(point["updated"] == 1 for point in points)
    heights = [height for _, height in drawn(page, "entropy")]
    values = [point["entropy"] for point in points]
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [heights[place] for place in order] == sorted(heights, reverse=True), "higher values stand higher"

    page.all("#search")[0].send_keys("GA")
    page.until(lambda: page.texts("#streams .id") == ["gate"])
    page.click("#streams button")
    page.until(lambda: page.texts("h2")[0] == "gate")
    assert page.texts("#freeze") == ["Unfreeze"]
    assert not page.complaints()


def drawn(page: Page, name: str) -> list[tuple[float, float]]:
    """The points of a line as it is drawn, downwards from the top."""
    path = page.all(f"svg[data-quantity={name}] path.series")[0].get_attribute("d")
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


def test_a_rollback_through_the_page_needs_the_token_and_changes_the_version(browser, server):
    address, client = server
    before, target = client.status("line-3"), client.snapshots("line-3")[0]["version"]
    page = Page(browser, f"{address}/#line-3")
    page.click(f"button[data-version='{target}']")
    page.until(lambda: page.texts("#question") == [f"Roll line-3 back to version {target}?"])
    page.all("#token")[0].send_keys("not the token at all")
    page.click("#do")
    page.until(lambda: "Expected: the token" in page.texts("#complaint")[0])
    assert client.status("line-3")["version"] == before["version"]

    page.all("#token")[0].send_keys(TOKEN)
    page.click("#do")
    page.until(lambda: page.facts()["version"] == str(before["version"] + 1))
    page.until(lambda: page.all("svg[data-quantity=entropy] .mark"))
    after = client.status("line-3")
    assert (after["version"], after["rollbacks"]) == (before["version"] + 1, before["rollbacks"] + 1)
    assert len(page.all("svg[data-quantity=entropy] .mark")) == 1

    page.click("#keep")
    page.until(lambda: page.all("#name")[0].is_displayed())
    assert not page.all("#token")[0].is_displayed(), "the page still has it"
    page.all("#name")[0].send_keys("by-hand")
    page.click("#do")
    page.until(lambda: "by-hand" in page.texts(".versions td.id"))
    assert [kept["version"] for kept in client.snapshots("line-3") if kept["name"] == "by-hand"] == [after["version"]]
    stored = browser.execute_script("return [localStorage.length, sessionStorage.length, document.cookie]")
    assert stored == [0, 0, ""]
    page.driver.refresh()
    page.click("#reset")
    page.until(lambda: page.all("#token")[0].is_displayed())
    assert page.all("#token")[0].get_attribute("value") == "", "a new page knows no token"
    refused = [line for line in page.complaints() if "401" not in line]
    assert not refused


def test_whatever_the_server_says_stays_text(browser):
    """A server, or who writes into what it tells, cannot make the page run or show anything but text."""
    hostile: dict[str, Any] = json.loads(json.dumps(ANSWERS))
    hostile["info"] |= {"model": HOSTILE, "method": {"name": HOSTILE}, "torch": HOSTILE}
    hostile["listed"]["streams"][0] |= {"stream": HOSTILE, "state": HOSTILE, "version": HOSTILE}
    signals = {f"signal {HOSTILE}": 1.0, "other": HOSTILE}
    hostile["status"] |= {"state": HOSTILE, "note": HOSTILE, "signals": signals, "rollbacks": HOSTILE}
    hostile["status"]["history"].append({HOSTILE: 1.0, "time": HOSTILE, "version": HOSTILE, "updated": 1})
    hostile["snapshots"]["snapshots"] = [{"version": HOSTILE, "name": HOSTILE, "current": False, "bytes": HOSTILE}]
    app = FastAPI()
    app.include_router(router)

    @app.get("/{path:path}")
    async def told(path: str, request: Request) -> JSONResponse:
        asked.append(request.scope["raw_path"].decode())
        by_path = {"readyz": "readyz", "v1/info": "info", "v1/streams": "listed"}
        return JSONResponse(hostile[by_path.get(path, "snapshots" if path.endswith("/snapshots") else "status")])

    @app.post("/{path:path}")
    async def refused(path: str) -> JSONResponse:
        return JSONResponse({"detail": {"found": HOSTILE, "expected": HOSTILE, "do": HOSTILE}}, 403)

    asked: list[str] = []
    with listening(app) as address:
        page = Page(browser, address)
        page.until(lambda: page.texts("#streams .id") == [HOSTILE])
        page.click("#streams button")
        page.until(lambda: page.texts("h2")[0] == HOSTILE and page.texts(".note") == [HOSTILE])
        assert page.texts("td.id") == [HOSTILE]
        assert f"signal {HOSTILE}".lower() in page.texts(".numbers dt")
        assert HOSTILE in page.texts("figcaption h3")
        assert page.texts("#streams .state") == [HOSTILE]
        assert HOSTILE in page.texts("#serving")[0]
        page.click(".versions button")
        page.all("#token")[0].send_keys(HOSTILE)
        page.click("#do")
        page.until(lambda: HOSTILE in page.texts("#complaint")[0])
        assert HOSTILE in page.texts("#question")[0]
        assert not page.all("img, b:not(.key b), script ~ script")
        assert browser.title == "acclimate"
        assert not [line for line in page.complaints() if "403" not in line]
    rest = set(asked) - {"/readyz", "/v1/info", "/v1/streams"}
    assert rest
    assert all(path.startswith("/v1/streams/%3C%2Fscript%3E") for path in rest), "an id stays one part of the path"


def test_a_hostile_address_stays_text_too(browser, server):
    address, _ = server
    page = Page(browser, f"{address}/#%3Cimg%20src=x%20onerror=alert(1)%3E")
    page.until(lambda: page.texts("#stream .empty") and "Expected" in page.texts("#stream .empty")[0])
    assert not page.all("img")
    page = Page(browser, f"{address}/#%E0%A4%A")
    page.until(lambda: page.texts("#stream .empty") and "Expected" in page.texts("#stream .empty")[0])


def test_a_server_that_is_gone_is_shown_and_found_again(browser):
    with serving() as (address, _), Client(address) as client:
        client.predict("line-3", images(0))
        page = Page(browser, f"{address}/#line-3")
        page.until(lambda: page.texts("#link") and page.texts("#link")[0].startswith("live"))
        assert not page.all("#alarm")[0].is_displayed()
    page.until(lambda: page.all("#alarm")[0].is_displayed())
    assert "does not answer" in page.texts("#alarm")[0]
    assert page.texts("#link") == ["not connected"]
    assert page.texts("#streams .id") == ["line-3"], "what was known stays"
    with serving(port=int(address.rsplit(":", 1)[1])) as (_, app):
        page.click("#again")
        page.until(lambda: not page.all("#alarm")[0].is_displayed())
        page.until(lambda: not page.all("#streams button"))
        app.state.service.drain()
        page.until(lambda: "not ready: the server is about to end" in page.texts("#alarm")[0])


def test_it_fits_a_phone(browser, server):
    address, _ = server
    page = Page(browser, f"{address}/#line-3")
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.until(lambda: page.all("figure"))
        script = "return [document.documentElement.scrollWidth, innerWidth]"
        wide, screen = browser.execute_script(script)
        assert wide <= screen == 360
        assert all(button.rect["height"] >= 32 for button in page.all("#stream button"))
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_is_light_or_dark_as_the_reader_wishes(browser, server):
    address, _ = server
    page, backgrounds = Page(browser, f"{address}/#line-3"), set[str]()
    for scheme in ("light", "dark"):
        wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
        page.until(lambda: page.all("figure"))
        backgrounds.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(backgrounds) == 2
