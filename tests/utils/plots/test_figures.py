import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.base.errors import DataError
from utils.plots.batches import plot_labels
from utils.plots.curves import plot_confusion_matrix, plot_mc_curve, plot_pr_curve
from utils.plots.figure import plot_features
from utils.plots.results import COLUMNS, plot_evolution, plot_results, read_results

PX = np.linspace(0, 1, 1000)


def size(path: Path) -> tuple[int, int]:
    """Return (width, height) of an image file."""
    image = cv2.imread(str(path))
    return image.shape[1], image.shape[0]


def write_results(path: Path, rows: int) -> Path:
    lines = [",".join(f"{name:>20s}" for name in ("epoch", *COLUMNS, "x/lr0"))]
    lines += [",".join(f"{value:20.5g}" for value in (epoch, *range(10), 0.01)) for epoch in range(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("rows", [1, 5])
def test_results_png_has_the_documented_size(rows: int, tmp_path) -> None:
    assert size(plot_results(write_results(tmp_path / "results.csv", rows))) == (2400, 1200)


def test_results_are_read_by_name_and_missing_cells_are_nan(tmp_path) -> None:
    file = write_results(tmp_path / "results.csv", 2)
    file.write_text(file.read_text() + "2, oops\n")
    table = read_results(file)
    assert table["epoch"].tolist() == [0, 1, 2]
    assert table["train/obj_loss"][1] == 1
    assert np.isnan(table["train/box_loss"][2])
    assert np.isnan(table["x/lr0"][2])


@pytest.mark.parametrize("text", ["", "epoch\n", "a,b\n1,2\n"])
def test_a_file_without_results_is_named(text: str, tmp_path) -> None:
    file = tmp_path / "results.csv"
    file.write_text(text)
    with pytest.raises(DataError, match="results.csv"):
        plot_results(file)


def test_curves_have_the_documented_size_and_take_any_class_name(tmp_path) -> None:
    names = ["a", "_b", "$c", "人"]
    curve = np.tile(1 - PX, (4, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_pr_curve(PX, curve, np.full((4, 10), 0.5), tmp_path / "PR_curve.png", names)
        plot_mc_curve(PX, curve, tmp_path / "F1_curve.png", names, ylabel="F1")
    assert size(tmp_path / "PR_curve.png") == size(tmp_path / "F1_curve.png") == (2250, 1500)


def test_curves_of_no_class_and_of_many_classes(tmp_path) -> None:
    plot_pr_curve(PX, np.zeros((0, 1000)), np.zeros((0, 10)), tmp_path / "none.png")
    plot_mc_curve(PX, np.tile(PX, (30, 1)), tmp_path / "many.png", [str(i) for i in range(30)])
    assert (tmp_path / "none.png").exists()
    assert (tmp_path / "many.png").exists()


@pytest.mark.parametrize(("nc", "normalize"), [(1, True), (3, False), (120, True)])
def test_confusion_matrix_of_any_size(nc: int, normalize: bool, tmp_path) -> None:
    matrix = np.zeros((nc + 1, nc + 1)) if nc == 1 else np.eye(nc + 1) * 5
    before = matrix.copy()
    plot_confusion_matrix(matrix, tmp_path / "m.png", [f"c{i}" for i in range(nc)], normalize)
    assert size(tmp_path / "m.png") == (3000, 2250)
    assert np.array_equal(matrix, before)


def test_plot_labels_writes_two_images(tmp_path) -> None:
    labels = np.array([[0, 0.5, 0.5, 0.1, 0.1], [1, 1.0, 0.0, 1.0, 1.0]], np.float32)
    made = plot_labels(labels, {0: "a", 1: "b", 2: "without labels"}, tmp_path / "run [1]")
    assert made is not None
    assert [path.name for path in made] == ["labels.jpg", "labels_correlogram.jpg"]
    assert size(made[0]) == (1600, 1600)


def test_without_labels_no_image_is_written(tmp_path) -> None:
    assert plot_labels(np.zeros((0, 5)), ["a"], tmp_path) is None


def test_feature_maps_are_written_as_image_and_array(tmp_path) -> None:
    maps = np.random.default_rng(0).random((2, 40, 6, 10)).astype(np.float32)
    path = plot_features(maps, "models.blocks.csp.C3", 4, tmp_path)
    assert path == tmp_path / "stage4_C3_features.png"
    assert np.array_equal(np.load(path.with_suffix(".npy")), maps[0, :32])
    width, height = size(path)
    assert width == 8 * (128 + 4) + 4
    assert height == 4 * (77 + 4) + 4


@pytest.mark.parametrize("maps", [np.zeros((1, 8, 1, 1)), [np.zeros(3)], np.zeros((1, 10, 85))])
def test_outputs_without_feature_maps_are_skipped(maps, tmp_path) -> None:
    assert plot_features(maps, "Detect", 24, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_importing_plots_loads_no_matplotlib() -> None:
    modules = ", ".join(f"utils.plots.{name}" for name in ("curves", "results", "batches", "figure"))
    heavy = ("matplotlib", "PIL", "torch", "pandas")
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


def test_an_evolution_shows_the_genes_that_vary(tmp_path: Path) -> None:
    genes = {f"gene{number}": [number, number, 0.5] for number in range(7)} | {"fixed": [1.0, 1.0, 1.0]}
    plot_evolution(genes, [0.1, 0.3, 0.2], tmp_path / "evolve.png")
    plot_evolution({"alone": [0.1]}, [0.0], tmp_path / "one.png")

    wide, one = size(tmp_path / "evolve.png"), size(tmp_path / "one.png")
    assert wide[0] == one[0] and wide[1] == 2 * one[1], "seven of eight genes, in two rows"
