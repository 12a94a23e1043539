"""report.html in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studies.compare.examples import Example
from studies.compare.report import PAGE, write_page
from tests.studies.compare.synthetic import synthetic_records


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it, and a label that contains HTML."""
    folder = tmp_path_factory.mktemp("page")
    records = synthetic_records()
    for row in records.results + records.curves:
        row["model"] = row["model"].replace("same", "</script><b>x</b>")
    image = np.full((90, 120, 3), 200, np.uint8)
    example = Example("a <b>.jpg", tuple((name, image) for name in ("truth", "base", "better")))
    write_page(records, folder, "notes", [example])
    return folder / PAGE


def test_the_page_has_no_links_and_escapes_labels(page: Path) -> None:
    text = page.read_text()
    body = text.split("<script>")[0]
    assert 'src="http' not in body and 'href="http' not in body
    assert "a &lt;b&gt;.jpg" in body and "&lt;/script&gt;" in body
    assert "</script><b>" not in text


@pytest.mark.parametrize("width", [1200, 375])
def test_a_browser_renders_the_page_without_errors(
    page: Path, browser: Any, width: int, tmp_path: Path
) -> None:
    errors: list[str] = []
    requests: list[str] = []
    tab = browser.new_page(viewport={"width": width, "height": 800})
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page.as_uri())
    tab.wait_for_selector("#classes-test .main-svg")

    plots = tab.locator(".plot")
    drawn = tab.locator(".plot .main-svg .trace, .plot .main-svg .points")
    assert plots.count() == 9 and drawn.count() >= 7 * 3 + 2 * 2
    assert tab.locator("figure img").count() == 3
    assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width, "nothing overflows"
    assert not errors
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    tab.screenshot(path=tmp_path / "page.png", full_page=True)
    tab.close()
