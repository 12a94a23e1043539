"""The compiled chain of 1-D convolutions against PyTorch's convolutions, forward and backward."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from models.attention.lska import LSKA, LSKATrivial, _Gate, depthwise
from utils.base.paths import ROOT
from utils.native.chain import is_native, separable_chain

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def stages_of(block: _Gate) -> list[nn.Conv2d]:
    return [layer for name, layer in block.named_children() if name != "conv1"]  # type: ignore[misc]


def plain(x: Tensor, stages: list[nn.Conv2d]) -> Tensor:
    for stage in stages:
        x = stage(x)
    return x


def results(run, x: Tensor, stages: list[nn.Conv2d], grad: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
    x = x.detach().requires_grad_()
    y = run(x, stages)
    values = [value for stage in stages for value in stage.parameters()]
    return [y.detach(), *torch.autograd.grad(y, [x, *values], grad)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("design", [LSKA, LSKATrivial])
@pytest.mark.parametrize(
    ("shape", "k"),
    [
        ((2, 64, 80, 80), 11),
        ((2, 128, 40, 40), 23),
        ((2, 512, 20, 20), 35),
        ((3, 40, 13, 21), 11),  # neither channels nor sides are multiples of a block
        ((1, 16, 5, 3), 35),  # smaller than the kernel
        ((2, 17, 1, 1), 7),
        ((1, 1, 9, 30), 53),
        ((2, 16, 12, 12), 65),
    ],
)
def test_equals_separate_convolutions(
    design: type[_Gate], shape: tuple[int, int, int, int], k: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    block = design(shape[1], k, init="paper")
    x = torch.randn(shape).to(memory_format=layout)
    grad = torch.randn(shape)
    stages = stages_of(block.to(memory_format=layout))
    assert is_native(x, stages)

    ours = results(separable_chain, x, stages, grad)
    theirs = results(plain, x, stages, grad)

    assert ours[0].is_contiguous(memory_format=layout) or 1 in shape[1:]
    for mine, yours in zip(ours, theirs, strict=True):
        assert mine.shape == yours.shape
        assert (mine - yours).abs().max() <= 1e-5 * max(1, yours.abs().max())


def test_a_map_with_gaps_in_memory() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 48, 10, 10).to(memory_format=torch.channels_last)[:, 8:40]
    stages = stages_of(LSKA(32, 11, init="paper"))

    for mine, yours in zip(
        results(separable_chain, x, stages, torch.ones(2, 32, 10, 10)),
        results(plain, x, stages, torch.ones(2, 32, 10, 10)),
        strict=True,
    ):
        assert torch.allclose(mine, yours, atol=1e-5, rtol=1e-5)


def test_results_are_equal_to_the_bit_on_any_number_of_threads() -> None:
    torch.manual_seed(0)
    x, grad = torch.randn(3, 40, 17, 19), torch.randn(3, 40, 17, 19)
    stages = stages_of(LSKA(40, 11, init="paper"))
    threads = torch.get_num_threads()
    runs = []
    try:
        for number in (1, 2, 3, 1):
            torch.set_num_threads(number)
            runs.append(results(separable_chain, x, stages, grad))
    finally:
        torch.set_num_threads(threads)

    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_results_of_an_image_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    x, stages = torch.randn(4, 16, 9, 9), stages_of(LSKA(16, 11, init="paper"))

    with torch.no_grad():
        assert torch.equal(separable_chain(x, stages)[2:3], separable_chain(x[2:3], stages))


def test_only_the_input_is_saved_for_the_backward_pass() -> None:
    kept: list[Tensor] = []
    stages = stages_of(LSKA(16, 11, init="paper"))
    x = torch.rand(1, 16, 20, 20, requires_grad=True)

    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        separable_chain(x, stages)

    assert sum(value.numel() == x.numel() for value in kept) == 1


def test_autocast_computes_in_float32() -> None:
    torch.manual_seed(0)
    x, stages = torch.randn(1, 16, 9, 9), stages_of(LSKA(16, 11, init="paper"))

    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        y = separable_chain(x.bfloat16(), stages)

    assert y.dtype == torch.float32
    assert torch.allclose(y, plain(x.bfloat16().float(), stages), atol=1e-5)


@pytest.mark.parametrize("case", ["double", "empty", "meta", "hook", "traced", "compiled", "other layer"])
def test_separate_convolutions_run_where_the_chain_cannot(case: str) -> None:
    stages: list[nn.Module] = [*stages_of(LSKA(16, 11, init="paper"))]
    x = torch.rand(0 if case == "empty" else 1, 16, 9, 9)
    seen = []
    if case == "double":
        x, stages = x.double(), [stage.double() for stage in stages]
    elif case == "meta":
        x, stages = x.to("meta"), [stage.to("meta") for stage in stages]
    elif case == "hook":
        stages[1].register_forward_hook(lambda *_: seen.append(1))
    elif case == "other layer":
        stages[0] = nn.Sequential(stages[0])
    elif case == "traced":
        traced = torch.jit.trace(LSKA(16, 11, init="paper").eval(), x, check_trace=False)
        assert str(traced.inlined_graph).count("aten::_convolution") == 5
        return
    elif case == "compiled":
        run = torch.compile(lambda v: separable_chain(v, stages), backend="eager", fullgraph=True)  # type: ignore[arg-type]
        assert torch.allclose(run(x), plain(x, stages), atol=1e-6)  # type: ignore[arg-type]
        return

    assert not is_native(x, stages)  # type: ignore[arg-type]
    assert separable_chain(x, stages).shape == x.shape  # type: ignore[arg-type]
    assert bool(seen) == (case == "hook")


def test_second_derivatives_raise() -> None:
    x = torch.rand(1, 16, 9, 9, requires_grad=True)
    (slope,) = torch.autograd.grad(
        separable_chain(x, stages_of(LSKA(16, 11, init="paper"))).square().sum(), x, create_graph=True
    )

    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_few_channels_on_many_threads_are_left_to_pytorch() -> None:
    code = (
        "import torch; torch.set_num_threads(8)\n"
        "from models.attention.lska import depthwise\n"
        "from utils.native.chain import is_native\n"
        "for channels in (16, 64): print(is_native(torch.rand(1, channels, 9, 9), "
        "[depthwise(channels, 1, 3), depthwise(channels, 3, 1)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=dict(os.environ)
    )

    assert done.stdout.split() == ["False", "True"], done.stderr


def test_depthwise_layers_of_lska_use_the_chain() -> None:
    assert is_native(torch.rand(1, 32, 9, 9), [depthwise(32, 1, 5), depthwise(32, 5, 1)])


@pytest.mark.parametrize("channels", [8, 40])
def test_another_number_of_channels_raises_as_in_pytorch(channels: int) -> None:
    with pytest.raises(RuntimeError, match="expected input"), torch.no_grad():
        LSKA(16, 11)(torch.rand(1, channels, 9, 9))


@pytest.mark.parametrize("count", [1, 3, 6])
def test_any_number_of_stages(count: int) -> None:
    torch.manual_seed(0)
    stages = [depthwise(16, *((1, 5) if index % 2 == 0 else (5, 1))) for index in range(count)]
    x = torch.rand(2, 16, 9, 9)

    assert torch.allclose(separable_chain(x, stages), plain(x, stages), atol=1e-6)


def test_an_image_without_a_batch() -> None:
    block = LSKA(16, 11, init="paper")
    x = torch.rand(16, 9, 9)

    assert torch.allclose(block(x), block(x[None])[0], atol=1e-6)


def test_transforms_of_torch_func() -> None:
    block, x = LSKA(16, 11, init="paper"), torch.rand(3, 1, 16, 9, 9)

    assert torch.allclose(torch.vmap(block)(x), block(x[:, 0])[:, None], atol=1e-5)
    slope = torch.func.grad(lambda v: block(v).square().sum())(x[0])
    y = x[0].clone().requires_grad_()
    block(y).square().sum().backward()
    assert torch.allclose(slope, y.grad, rtol=1e-4, atol=1e-4)


def test_the_memory_of_a_thread_is_freed_with_it() -> None:
    """Each thread that runs the chain has scratch memory of its own."""
    code = (
        "import threading, psutil, torch\n"
        "from models.attention.lska import LSKA\n"
        "block, x = LSKA(16, 23), torch.rand(1, 16, 160, 160)\n"
        "def work():\n"
        "    torch.set_num_threads(1)\n"
        "    with torch.no_grad(): block.convolve(x)\n"
        "def run(count):\n"
        "    for _ in range(count):\n"
        "        t = threading.Thread(target=work); t.start(); t.join()\n"
        "    return psutil.Process().memory_info().rss\n"
        "before = run(20)\n"
        "print((run(60) - before) / 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 60  # MiB; with a leak it is 190
