"""report.html, looked at in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studies.compare.examples import Example
from studies.compare.html_page import PAGE, write_page
from tests.studies.compare.drawn import drawn_records

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it, and a label that tries to break out."""
    folder = tmp_path_factory.mktemp("page")
    records = drawn_records()
    for row in records.results + records.curves:
        row["model"] = row["model"].replace("same", "</script><b>x</b>")
    image = np.full((90, 120, 3), 200, np.uint8)
    example = Example("a <b>.jpg", tuple((name, image) for name in ("truth", "base", "better")))
    write_page(records, folder, "notes", [example])
    return folder / PAGE


def test_the_page_stands_alone_and_escapes_labels(page: Path) -> None:
    text = page.read_text()
    body = text.split("<script>")[0]
    assert 'src="http' not in body and 'href="http' not in body
    assert "a &lt;b&gt;.jpg" in body and "&lt;/script&gt;" in body
    assert "</script><b>" not in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, where this machine has one."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield started
        started.close()


@pytest.mark.parametrize("width", [1200, 375])
def test_a_browser_shows_it_without_errors(page: Path, browser: Any, width: int, tmp_path: Path) -> None:
    complaints: list[str] = []
    asked: list[str] = []
    tab = browser.new_page(viewport={"width": width, "height": 800})
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri())
    tab.wait_for_selector("#classes-test .main-svg")

    plots = tab.locator(".plot")
    drawn = tab.locator(".plot .main-svg .trace, .plot .main-svg .points")
    assert plots.count() == 7 and drawn.count() >= 7 * 3
    assert tab.locator("figure img").count() == 3
    assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    assert not complaints
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    tab.screenshot(path=tmp_path / "page.png", full_page=True)
    tab.close()
