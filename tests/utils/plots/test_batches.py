import numpy as np
import torch

from utils.plots.annotator import colors
from utils.plots.batches import output_to_target, plot_images


def image(path) -> np.ndarray:
    import cv2

    return cv2.imread(str(path))


def test_the_batch_is_not_modified(tmp_path) -> None:
    for images in (torch.rand(2, 3, 64, 96), torch.randint(0, 255, (2, 3, 64, 96), dtype=torch.uint8)):
        before = images.clone()
        targets = torch.tensor([[0, 1, 0.5, 0.5, 0.5, 0.5]])
        kept = targets.clone()
        plot_images(images, targets, ["a.jpg", "b.jpg"], tmp_path / "x.jpg", ["a", "b"])
        assert torch.equal(images, before)
        assert torch.equal(targets, kept)


def test_float_and_uint8_images_give_the_same_plot(tmp_path) -> None:
    red = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    red[:, 0] = 255
    one = plot_images(red, [], None, tmp_path / "a.png")
    other = plot_images(red.float() / 255, [], None, tmp_path / "b.png")
    assert np.array_equal(one, other)
    assert one[16, 16].tolist() == [0, 0, 255]  # BGR


def test_at_most_16_images_are_scaled_to_1920_pixels(tmp_path) -> None:
    images = torch.zeros(20, 3, 640, 512, dtype=torch.uint8)
    mosaic = plot_images(images, torch.zeros(0, 6), None, tmp_path / "a.jpg")
    assert mosaic.shape == (1920, 1536, 3)
    assert image(tmp_path / "a.jpg").shape == mosaic.shape


def test_five_images_have_no_empty_row(tmp_path) -> None:
    assert plot_images(torch.zeros(5, 3, 64, 64), [], None, tmp_path / "a.jpg").shape == (128, 192, 3)


def test_labels_are_fractions_and_detections_are_pixels(tmp_path) -> None:
    images = torch.zeros(1, 3, 200, 400)
    labels = np.array([[0, 3, 0.5, 0.5, 0.5, 0.5]])
    found = output_to_target([torch.tensor([[100.0, 50, 300, 150, 0.9, 3]])])
    drawn = [
        plot_images(images, rows, None, tmp_path / "a.jpg", {3: "x"})[100:, :] for rows in (labels, found)
    ]
    edge = np.flatnonzero((drawn[0][20] == colors(3, bgr=True)).all(-1))
    assert edge.tolist() == [100, 300]
    assert np.array_equal(drawn[0], drawn[1])


def test_detections_of_low_confidence_are_not_drawn(tmp_path) -> None:
    images = torch.zeros(1, 3, 100, 100)
    found = output_to_target([torch.tensor([[10.0, 10, 80, 80, 0.25, 3]])])
    assert not (plot_images(images, found, None, tmp_path / "a.jpg")[3:-3, 3:-3]).any()


def test_output_to_target_has_image_indices_and_at_most_max_det_rows() -> None:
    detections = [torch.zeros(0, 6), torch.tensor([[0.0, 0, 10, 20, 0.9, 1], [0, 0, 4, 4, 0.8, 2]])]
    rows = output_to_target(detections, max_det=1)
    assert rows.tolist() == [[1, 1, 5, 10, 10, 20, np.float32(0.9)]]
    assert output_to_target([]).shape == (0, 7)


def test_an_empty_batch_and_an_unknown_class_are_drawn(tmp_path) -> None:
    plot_images(torch.zeros(0, 3, 32, 32), [], [], tmp_path / "a.jpg")
    unknown = np.array([[0, 7, 0.5, 0.5, 0.5, 0.5]])
    drawn = plot_images(torch.zeros(1, 3, 32, 32), unknown, None, tmp_path / "b.jpg", ["a"])
    assert (drawn == colors(7, bgr=True)).all(-1).any()
    assert image(tmp_path / "b.jpg").shape == drawn.shape
