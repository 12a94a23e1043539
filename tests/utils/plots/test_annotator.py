import cv2
import numpy as np
import pytest

from utils.plots import annotator
from utils.plots.annotator import (
    PALETTE_RGB,
    Annotator,
    colors,
    colors_on_white,
    crop_box,
    readable_on,
    save_crop,
)


def grey(height: int = 200, width: int = 300) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def test_the_palette_has_20_colours_and_repeats() -> None:
    assert colors(0) == (0x04, 0x2A, 0xFF)
    assert colors(0, bgr=True) == (0xFF, 0x2A, 0x04)
    assert colors(19) == (0xA2, 0xFF, 0x0B)
    assert len(PALETTE_RGB) == 20
    assert colors(23) == colors(3)


def test_colours_are_visible_on_white_and_text_on_its_background() -> None:
    for index in range(20):
        assert 0.299 * colors_on_white(index)[0] + 0.587 * colors_on_white(index)[1] < 171
    assert readable_on((255, 255, 255)) == (0, 0, 0)
    assert readable_on((255, 42, 4)) == (255, 255, 255)


def test_a_box_is_drawn_on_its_edges_in_place() -> None:
    image = grey()
    annotated = Annotator(image, line_width=1)
    annotated.box_label((50, 60, 100, 120), color=(1, 2, 3))
    assert annotated.result() is image
    assert (image[60, 75] == (1, 2, 3)).all()
    assert (image[120, 75] == (1, 2, 3)).all()
    assert (image[90, 50] == (1, 2, 3)).all()
    assert (image[90, 75] == 128).all()


@pytest.mark.parametrize(
    "xyxy", [(0, 0, 40, 40), (280, 150, 299, 199), (-20, -20, 500, 500), (10, 20, 10, 20)]
)
def test_labels_at_the_borders_are_inside_the_image(xyxy: tuple[float, ...]) -> None:
    image = grey()
    Annotator(image, line_width=3).box_label(xyxy, "person 0.88", (0, 0, 255))
    assert (image == (0, 0, 255)).all(-1).any()


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("word", ["Größe", "человек", "cat"])
def test_letters_beyond_ascii_are_drawn_as_letters(
    word: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV 4 would draw question marks, so Pillow draws instead."""
    if native and not hasattr(cv2, "FontFace"):
        pytest.skip("OpenCV 4 draws ASCII only")
    monkeypatch.setattr(annotator, "_OPENCV_DRAWS_UNICODE", native)

    def ink(letters: str) -> np.ndarray:
        image = np.zeros((60, 300, 3), np.uint8)
        annotator.draw_text(image, letters, (10, 40), 0.8, (255, 255, 255))
        return image

    width, height = annotator.text_size(word, 0.8)
    columns = np.flatnonzero(ink(word).any((0, 2)))
    assert abs(columns[-1] - 10 - width) < 15
    assert 5 < height < 40
    assert (ink(word) != ink("?" * len(word))).any()


def test_a_crop_is_2_percent_and_10_pixels_larger_and_clipped_to_the_image(tmp_path) -> None:
    image = np.arange(200 * 300 * 3, dtype=np.uint32).reshape(200, 300, 3).astype(np.uint8)
    assert crop_box((100, 50, 200, 150), image).shape == (112, 112, 3)  # 100 * 1.02 + 10
    assert crop_box((0, 0, 50, 50), image).shape == (55, 55, 3)
    assert np.array_equal(crop_box((100, 50, 200, 150), image), image[44:156, 94:206])
    made = save_crop((100, 50, 200, 150), image, tmp_path / "new" / "ünï [1].jpg")
    back = cv2.imdecode(np.fromfile(tmp_path / "new" / "ünï [1].jpg", np.uint8), cv2.IMREAD_COLOR)
    assert back.shape == made.shape


def test_a_crop_outside_the_image_is_not_written(tmp_path) -> None:
    assert save_crop((400, 400, 420, 420), grey(), tmp_path / "a.jpg").size == 0
    assert not (tmp_path / "a.jpg").exists()
