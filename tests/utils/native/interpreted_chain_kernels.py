"""The Triton kernels on the CPU, by Triton's interpreter; test_chain_triton.py runs it in a subprocess.

TRITON_INTERPRET=1 must be set before triton is imported, and would change triton in all other tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

from models.attention.lska import LSKA, LSKATrivial, _Gate
from utils.native import chain, chain_kernels, chain_triton

Run = Callable[[Tensor, Sequence[nn.Conv2d]], Tensor]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
SMALL = [
    ((3, 1, 5, 7), 23, 0),  # sides smaller than the kernel
    ((1, 8, 20, 20), 11, 0),
    ((2, 8, 12, 11), 11, 1),  # several blocks of pixels in several images
    ((1, 40, 3, 2), 7, 0),
    ((1, 40, 3, 2), 7, 1),  # channels are not a multiple of a block
    ((1, 1, 33, 17), 35, 1),
    ((1, 8, 1, 1), 53, 1),
]
SIDES = [(1, 1), (5, 7), (20, 20), (33, 17)]
LARGE = [
    (design, (images, channels, *sides), k)
    for (design, images, channels), sides, k in itertools.product(
        [(LSKA, 1, 1), (LSKA, 3, 8), (LSKA, 1, 40), (LSKATrivial, 3, 8)], SIDES, [7, 11, 23, 35, 53]
    )
]
LARGE += [(LSKA, (3, 40, 33, 17), 11), (LSKA, (1, 70, 40, 40), 23)]  # several blocks in both layouts


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let CPU tensors use the kernels, and check that PyTorch's convolutions did not replace them."""
    monkeypatch.setenv("YOLOV5_TRITON", "1")
    monkeypatch.setattr(chain_triton, "DEVICES", ("cpu",))
    yield
    assert chain_triton.is_enabled()


def stages_of(block: _Gate) -> list[nn.Conv2d]:
    return [layer for name, layer in block.named_children() if name != "conv1"]  # type: ignore[misc]


def plain(x: Tensor, stages: Sequence[nn.Conv2d]) -> Tensor:
    for stage in stages:
        x = stage(x)
    return x


def results(run: Run, x: Tensor, stages: Sequence[nn.Conv2d], grad: Tensor) -> list[Tensor]:
    """Return the output, and the gradients of the input, of weights and of biases."""
    x = x.detach().requires_grad_()
    y = run(x, stages)
    values = [value for stage in stages for value in stage.parameters()]
    return [y.detach(), *torch.autograd.grad(y, [x, *values], grad)]


def exact(x: Tensor, stages: Sequence[nn.Conv2d], grad: Tensor) -> list[Tensor]:
    """Return the results of PyTorch's convolutions in float64."""
    doubles = []
    for stage in stages:
        sizes = {"padding": stage.padding, "dilation": stage.dilation, "groups": stage.groups}
        double = nn.Conv2d(stage.in_channels, stage.out_channels, stage.kernel_size, **sizes).double()  # type: ignore[arg-type]
        double.load_state_dict(stage.state_dict())
        doubles.append(double)
    return results(plain, x.double(), doubles, grad.double())


def assert_close(ours: list[Tensor], theirs: list[Tensor], tolerance: float, least: float = 0) -> None:
    """Check that differences are below `tolerance` of the largest value of a tensor, at least of `least`."""
    for mine, yours in zip(ours, theirs, strict=True):
        assert mine.shape == yours.shape
        assert (mine.double() - yours).abs().max() <= tolerance * max(least, float(yours.abs().max()))


def check(design: type[_Gate], shape: tuple[int, ...], k: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    stages = stages_of(design(shape[1], k, init="paper").to(memory_format=layout))
    x, grad = torch.randn(shape).to(memory_format=layout), torch.randn(shape)

    ours = results(chain_triton.triton_chain, x, stages, grad)

    assert ours[0].is_contiguous(memory_format=layout) or 1 in shape[1:]
    assert_close(ours, exact(x, stages, grad), 1e-5, least=1)  # one channel's sum may be nearly zero


@pytest.mark.parametrize(("shape", "k", "layout"), SMALL)
def test_equals_separate_convolutions(shape: tuple[int, ...], k: int, layout: int) -> None:
    check(LSKA, shape, k, LAYOUTS[layout])


@pytest.mark.parametrize(("shape", "k", "layout"), [((1, 1, 9, 30), 23, 0), ((3, 8, 5, 7), 7, 1)])
def test_two_stages(shape: tuple[int, ...], k: int, layout: int) -> None:
    check(LSKATrivial, shape, k, LAYOUTS[layout])


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("design", "shape", "k"), LARGE)
def test_equals_separate_convolutions_for_many_shapes(
    design: type[_Gate], shape: tuple[int, ...], k: int, layout: torch.memory_format
) -> None:
    check(design, shape, k, layout)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "layout"),
    [(torch.float16, 4e-3, torch.channels_last), (torch.bfloat16, 3e-2, torch.contiguous_format)],
)
def test_half_precision_accumulates_in_float32(
    dtype: torch.dtype, tolerance: float, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    stages = stages_of(LSKA(8, 11, init="paper").to(dtype))
    x, grad = (
        torch.randn(1, 8, 9, 13, dtype=dtype).to(memory_format=layout),
        torch.randn(1, 8, 9, 13).to(dtype),
    )

    ours = results(chain_triton.triton_chain, x, stages, grad)

    assert {value.dtype for value in ours} == {dtype}
    assert_close(ours, exact(x, stages, grad), tolerance)


def test_the_derivative_in_every_direction_is_the_gradient() -> None:
    """The chain is linear in the input and in each weight and bias, so that central differences are exact."""
    torch.manual_seed(0)
    stages = stages_of(LSKATrivial(4, 5, init="paper"))
    x, grad = torch.randn(1, 4, 5, 7), torch.randn(1, 4, 5, 7)
    _, *grads = results(chain_triton.triton_chain, x, stages, grad)
    with torch.no_grad():
        for value, slope in zip([x, *(v for s in stages for v in s.parameters())], grads, strict=True):
            step, kept = torch.randn_like(value), value.clone()
            up, down = (
                chain_triton.triton_chain(x, stages) for _ in map(value.copy_, (kept + step, kept - step))
            )
            value.copy_(kept)
            numeric, analytic = ((up - down).double() * grad).sum() / 2, (slope.double() * step).sum()
            assert numeric == pytest.approx(float(analytic), rel=1e-4, abs=1e-4)


def test_the_self_check_accepts_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_triton, "_CHECKED_SHAPE", (2, 48, 3, 5))
    torch.manual_seed(0)
    stages = stages_of(LSKA(8, 7, init="paper"))
    x = torch.randn(1, 8, 5, 7).to(memory_format=torch.channels_last)
    grad = torch.randn(1, 8, 5, 7)

    assert chain_triton.is_triton(x, stages)
    assert_close(results(chain.separable_chain, x, stages, grad), exact(x, stages, grad), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", list(chain_triton.TOLERANCES))
def test_the_self_check_accepts_every_precision(dtype: torch.dtype, layout: torch.memory_format) -> None:
    stages = stages_of(LSKA(8, 35).to(dtype))

    assert chain_triton.is_triton(torch.randn(1, 8, 5, 7, dtype=dtype).to(memory_format=layout), stages)


def test_autocast_returns_its_precision_and_gradients_in_float32() -> None:
    torch.manual_seed(0)
    stages = stages_of(LSKA(8, 7, init="paper"))
    x, grad = torch.randn(1, 8, 5, 7), torch.randn(1, 8, 5, 7)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = results(chain_triton.triton_chain, x, stages, grad.bfloat16())

    assert [value.dtype for value in ours] == [torch.bfloat16, *[torch.float32] * 9]
    assert_close(ours, exact(x, stages, grad), 3e-2)


def test_results_of_an_image_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    x, stages = torch.randn(3, 8, 9, 9), stages_of(LSKA(8, 7, init="paper"))

    with torch.no_grad():
        whole, one = (chain_triton.triton_chain(images, stages) for images in (x, x[1:2]))
    assert torch.equal(whole[1:2], one)


def test_a_map_with_gaps_in_memory() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 24, 5, 7).to(memory_format=torch.channels_last)[:, 8:16]
    stages, grad = stages_of(LSKA(8, 7, init="paper")), torch.randn(2, 8, 7, 5).transpose(2, 3)

    assert_close(results(chain_triton.triton_chain, x, stages, grad), exact(x, stages, grad), 1e-5)


@pytest.mark.parametrize("last", [True, False])
def test_a_grid_has_a_program_for_every_block(last: bool) -> None:
    x = torch.empty(3, 70, 50, 41)
    x = x.to(memory_format=torch.channels_last) if last else x

    grid, constants = chain_kernels._launch(x)

    assert grid == ((17, 3, 3) if last else (3, 18, 3))
    assert constants["LAST"] is last
