"""The web page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="pip install fastapi httpx prometheus-client python-multipart uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")
pytest.importorskip("uvicorn")

from tests.models.backends.files import checkpoint
from tests.models.classifier import NAMES, classifier
from tests.serve.process import Server, started
from tests.serve.service import encoded, make_image, saved

DONE = ".panel[aria-busy=false]"
DROP = """([text]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
  const how = {dataTransfer: transfer, bubbles: true, cancelable: true};
  document.body.dispatchEvent(new DragEvent("drop", how));
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with started("--max-wait-ms", "0", "--max-upload-mb", "1") as running:
        yield running


class Tab:
    """The page in a tab, with its errors and the URLs of its requests."""

    def __init__(self, browser: Any, url: str, width: int = 1200) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.errors: list[str] = []
        self.requests: list[str] = []
        listen = self.page.on
        listen(
            "console", lambda message: self.errors.append(message.text) if message.type == "error" else None
        )
        listen("pageerror", lambda error: self.errors.append(str(error)))
        listen("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)
        self.page.wait_for_selector(".state.good, .state.bad")

    def choose(self, name: str, content: bytes) -> None:
        self.page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})

    def counts(self) -> list[int]:
        """Wait for both panels and return the number of boxes that each shows."""
        self.page.wait_for_selector(f"{DONE} >> nth=1")
        return [int(text) for text in self.page.locator(f"{DONE} .count strong").all_inner_texts()]

    def slide(self, name: str, value: str) -> None:
        self.page.locator(name).fill(value)

    def uploads(self) -> int:
        return sum("/v1/detect/" in url for url in self.requests)


@pytest.fixture
def tab(browser: Any, server: Server) -> Iterator[Tab]:
    opened = Tab(browser, server.url)
    yield opened
    opened.page.close()


@pytest.mark.parametrize("width", [1200, 375])
def test_two_models_detect_in_an_image(browser: Any, server: Server, width: int, tmp_path: Path) -> None:
    tab = Tab(browser, server.url, width)
    tab.choose("cells.png", encoded(make_image(2, 200, 300)))
    few = tab.counts()
    tab.slide("#conf", "0.05")
    many = tab.counts()
    tab.slide("#conf", "0.95")

    assert len(many) == 2 and min(many) > max(few) > 0 and tab.counts() == [0, 0]
    assert tab.uploads() == 2, "the confidence slider sends no request"
    assert "ms inference" in tab.page.locator(".times").first.inner_text()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width, "no horizontal scrolling"
    assert not tab.errors
    assert all(url.startswith((server.url, "data:", "blob:")) for url in tab.requests)
    tab.page.screenshot(path=tmp_path / "page.png", full_page=True)
    tab.page.close()


def test_a_dropped_image_is_drawn_with_boxes(tab: Tab) -> None:
    import base64

    tab.page.evaluate(DROP, [base64.b64encode(encoded(make_image(2, 200, 300))).decode()])
    assert min(tab.counts()) > 0
    assert tab.page.locator("#image-name").inner_text() == "dropped.png"
    drawn = "() => document.querySelector('canvas').toDataURL()"
    with_boxes = tab.page.evaluate(drawn)
    tab.slide("#conf", "0.95")

    assert tab.page.evaluate(drawn) != with_boxes
    assert "found nothing" in str(tab.page.locator("canvas").first.get_attribute("aria-label"))


def test_polygons_are_filled_below_the_boxes(tab: Tab) -> None:
    """In a black image: half of the class's colour inside of the polygon, black beside it in the box."""
    box = {
        "xmin": 40,
        "ymin": 40,
        "xmax": 160,
        "ymax": 160,
        "confidence": 0.9,
        "class": 1,
        "name": "red plate",
    }
    triangle = [[40, 40], [160, 40], [40, 160]]
    empty = {**box, "name": "cell", "class": 0, "polygon": []}
    result = {
        "size": {"width": 300, "height": 200}, "input": {"width": 64, "height": 64}, "batch": 1,
        "times_ms": {"decode": 1, "queue": 1, "inference": 1, "nms": 1, "masks": 7, "total": 11},
        "detections": [{**box, "polygon": triangle}, empty],
    }  # fmt: skip
    tab.page.route("**/v1/detect/**", lambda route: route.fulfill(json=result))
    tab.choose("black.png", encoded(np.zeros((200, 300, 3), np.uint8)))
    assert tab.counts() == [2, 2]
    pixel = """([x, y]) => {
      const canvas = document.querySelector("canvas");
      const zoom = canvas.width / 300;
      return [...canvas.getContext("2d").getImageData(x * zoom, y * zoom, 1, 1).data];
    }"""

    assert tab.page.evaluate(pixel, [70, 90]) == pytest.approx([0x0B / 2, 0xDB / 2, 0xEB / 2, 255], abs=1)
    assert tab.page.evaluate(pixel, [140, 130]) == [0, 0, 0, 255]
    assert "10 ms decoding, queue, NMS and masks" in tab.page.locator(".times").first.inner_text()
    assert not tab.errors


def test_the_iou_slider_sends_a_request_and_classes_can_be_hidden(tab: Tab) -> None:
    tab.choose("cells.png", encoded(make_image(2, 200, 300)))
    tab.slide("#conf", "0.05")
    before = tab.counts()
    with tab.page.expect_response(lambda response: response.url.endswith("tiny2")):
        tab.slide("#iou", "0.9")
    tab.page.wait_for_selector(f"{DONE} >> nth=1")
    after = tab.counts()
    legend = tab.page.locator("#classes button")
    shown = legend.count()
    legend.first.click()

    assert tab.uploads() == 4 and min(after) > max(before)
    assert shown == 2 and 0 < max(tab.counts()) < min(after)
    assert legend.first.get_attribute("aria-pressed") == "false"


def test_classes_are_a_list_with_bars_beside_boxes(browser: Any, tmp_path: Path) -> None:
    weights = [str(classifier()), str(checkpoint())]
    with started("--max-wait-ms", "0", weights=weights) as mixed:
        tab = Tab(browser, mixed.url)
        tab.choose("cells.png", encoded(make_image(2, 200, 300)))
        tab.page.wait_for_selector(f"{DONE} >> nth=1")
        bars, sliders = tab.page.locator(".bars li"), tab.page.locator("label.about-boxes")
        scores = [float(text) for text in tab.page.locator(".bars li > span:nth-child(2)").all_inner_texts()]
        widths = bars.evaluate_all("(all) => all.map((one) => one.querySelector('.track span').style.width)")
        best = tab.page.locator(".count span").first.inner_text()

        assert bars.count() == 5 and scores == sorted(scores, reverse=True) and sum(scores) < 1.01
        assert [float(width.rstrip("%")) / 100 for width in widths] == pytest.approx(scores, abs=6e-4)
        assert best == tab.page.locator(".bars .name").first.inner_text() in NAMES.values()
        assert f"tiny-cls found {best}" in tab.page.locator("#news").inner_text()
        assert tab.page.locator("details.boxes").count() == 1 and sliders.first.is_visible()

        with tab.page.expect_download() as download:
            tab.page.click(".classes .save")
        assert download.value.suggested_filename == "tiny-cls.jpeg"
        tab.page.select_option("#model-b", "")
        tab.page.wait_for_selector(DONE)
        assert bars.count() == 5 and not any(one.is_visible() for one in sliders.all())
        tab.choose("cells.tif", saved(make_image(2, 200, 300), "TIFF"))
        tab.page.locator("#image-name", has_text="cells.tif").wait_for()
        tab.page.wait_for_selector(DONE)
        assert bars.count() == 5 and not tab.errors
        tab.page.close()


def test_a_single_model_can_be_selected(tab: Tab) -> None:
    tab.page.select_option("#model-b", "")
    tab.choose("cells.png", encoded(make_image(2)))
    tab.page.wait_for_selector(DONE)

    assert tab.page.locator(".panel").count() == 1


def test_errors_are_shown_and_the_next_image_works(tab: Tab) -> None:
    error = tab.page.locator("#error")
    tab.choose("notes.png", b"no image at all")
    error.wait_for()
    assert "notes.png" in error.inner_text() and "unknown format" in error.inner_text()
    tab.choose("large.png", bytes(2**21))
    assert "large.png has 2.0 MB; the limit of this server is 1 MB." in error.inner_text()

    tab.choose("cells.png", encoded(make_image(2)))
    assert min(tab.counts()) > 0 and error.is_hidden()


def test_formats_that_the_browser_cannot_show_are_converted_by_the_server(tab: Tab) -> None:
    tab.choose("cells.tif", saved(make_image(2, 200, 300), "TIFF"))

    assert min(tab.counts()) > 0
    assert "300 x 200 pixels" in tab.page.locator("#image-facts").inner_text()


def test_the_camera_takes_an_image(tab: Tab) -> None:
    tab.page.click("#camera")
    tab.page.click("#shoot")

    assert len(tab.counts()) == 2
    assert tab.page.locator("#image-name").inner_text() == "camera.jpg"
    assert tab.page.locator("#camera-box").is_hidden()


def test_the_page_asks_for_the_key(browser: Any) -> None:
    with started("--max-wait-ms", "0", api_key="s3cret") as locked:
        tab = Tab(browser, locked.url)
        assert "X-API-Key" in tab.page.locator("#error").inner_text()
        tab.page.fill("#key", "s3cret")
        tab.page.press("#key", "Enter")
        tab.page.wait_for_selector(".state.good")
        tab.choose("cells.png", encoded(make_image(2)))

        assert min(tab.counts()) > 0
        tab.page.close()
