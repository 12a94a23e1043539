"""The switch, self-check and fallback of the Triton chain; its kernels by the interpreter and the compiler.

Most tests replace the kernels with PyTorch's operators, so that they need neither triton nor a GPU.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import utils.native
from models.attention.lska import LSKA
from utils.base.paths import ROOT
from utils.native import chain, chain_triton
from utils.train.run_dir import versions

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
X = (2, 8, 9, 7)


class Kernels(SimpleNamespace):
    """Replacement of utils/native/chain_kernels.py by PyTorch's operators, with a defect on request."""

    def __init__(self, defect: str = "") -> None:
        super().__init__(defect=defect, calls=[])

    def forward(
        self, x: Tensor, values: Sequence[Tensor], dilations: Sequence[int], keep: bool = True
    ) -> list[Tensor]:
        self.calls.append("forward")
        self.fail("forward")
        maps = chain_triton._plain_maps(x, dilations, values)
        if self.defect == "output":
            maps[-1] = maps[-1].roll(1, 3)
        if self.defect == "not a number":
            maps[-1] = maps[-1] / 0 * 0
        return maps if keep else maps[-1:]

    def backward(
        self, maps: Sequence[Tensor], grad_y: Tensor, values: Sequence[Tensor], dilations: Sequence[int]
    ) -> list[Tensor]:
        self.calls.append("backward")
        self.fail("backward")
        _, *grads = chain_triton._by_autograd(chain_triton._plain, maps[0], grad_y, dilations, values)
        if self.defect == "gradient of a weight":
            grads[5] = grads[5].flip(3)
        if self.defect == "gradient of the input":
            grads[0] = grads[0].flip(2)
        return grads

    def fail(self, name: str) -> None:
        if self.defect == name:
            raise RuntimeError(f"cannot compile\nthe {name} kernel")
        if self.defect == f"memory of {name}":
            raise torch.cuda.OutOfMemoryError("out of memory")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let CPU tensors use the chain, not yet checked, and never the compiled one."""
    monkeypatch.setenv("YOLOV5_TRITON", "1")
    monkeypatch.delenv("YOLOV5_NATIVE", raising=False)
    monkeypatch.setattr(chain_triton, "DEVICES", ("cpu",))
    monkeypatch.setattr(chain_triton, "_checked", set())
    monkeypatch.setattr(chain_triton, "_is_broken", threading.Event())
    monkeypatch.setattr(chain, "is_native", lambda x, stages: False)
    yield


def use(monkeypatch: pytest.MonkeyPatch, defect: str = "") -> Kernels:
    kernels = Kernels(defect)
    monkeypatch.setattr(utils.native, "chain_kernels", kernels, raising=False)
    return kernels


def block_of(channels: int = 8) -> LSKA:
    torch.manual_seed(0)
    return LSKA(channels, 11, init="paper")


def stages_of(block: LSKA) -> list[nn.Conv2d]:
    return [block.conv0h, block.conv0v, block.conv_spatial_h, block.conv_spatial_v]


def results(x: Tensor, stages: Sequence[nn.Conv2d]) -> list[Tensor]:
    x = x.detach().requires_grad_()
    y = chain.separable_chain(x, stages)
    values = [value for stage in stages for value in stage.parameters()]
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *values])]


def plain_results(x: Tensor, stages: Sequence[nn.Conv2d]) -> list[Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLOV5_TRITON", "0")
        return results(x, stages)


def are_close(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("environment", "enabled"),
    [
        ({}, False),
        ({"YOLOV5_TRITON": "0"}, False),
        ({"YOLOV5_TRITON": "1"}, True),
        ({"YOLOV5_TRITON": "1", "YOLOV5_NATIVE": "1"}, True),
        ({"YOLOV5_TRITON": "1", "YOLOV5_NATIVE": "0"}, False),
    ],
)
def test_the_kernels_are_off_unless_asked_for(
    environment: dict[str, str], enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = use(monkeypatch)
    monkeypatch.delenv("YOLOV5_TRITON")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    results(torch.rand(X), stages_of(block_of()))

    assert bool(kernels.calls) is chain_triton.is_enabled() is enabled
    assert versions()["kernels"].endswith("Triton") is enabled


def test_tensors_of_the_cpu_do_not_use_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = use(monkeypatch)
    monkeypatch.setattr(chain_triton, "DEVICES", ("cuda",))

    results(torch.rand(X), stages_of(block_of()))

    assert not kernels.calls


def test_a_kind_of_chain_is_checked_once(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    kernels, stages, x = use(monkeypatch), stages_of(block_of()), torch.rand(X)

    assert are_close(results(x, stages), plain_results(x, stages))
    assert kernels.calls == ["forward", "backward"] * 2
    results(torch.rand(1, 8, 3, 4), stages)
    assert len(kernels.calls) == 6
    results(x.to(memory_format=torch.channels_last), stages)
    assert len(kernels.calls) == 10
    results(x.bfloat16(), [stage.bfloat16() for stage in stages])
    assert len(kernels.calls) == 14
    assert not logged


@pytest.mark.parametrize(
    "defect",
    ["output", "gradient of a weight", "gradient of the input", "not a number", "forward", "backward"],
)
def test_wrong_kernels_cost_one_warning(
    defect: str, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    kernels, stages, x = use(monkeypatch, defect), stages_of(block_of()), torch.rand(X)

    ours = [results(x, stages), results(x.to(memory_format=torch.channels_last), stages)]

    assert kernels.calls.count("forward") == 1
    assert not chain_triton.is_enabled()
    assert all(are_close(mine, plain_results(x, stages)) for mine in ours)
    assert len(logged) == 1
    assert logged[0].startswith("YOLOV5_TRITON: the kernels are off") and "\n" not in logged[0]
    assert ("differs from PyTorch's" in logged[0]) is (defect not in ("forward", "backward"))


@pytest.mark.parametrize("defect", ["forward", "backward"])
def test_a_kernel_that_fails_after_the_check_is_replaced(
    defect: str, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    kernels, stages, x = use(monkeypatch), stages_of(block_of()), torch.rand(X)
    results(x, stages)
    kernels.defect = defect

    ours = results(x, stages)

    assert are_close(ours, plain_results(x, stages))
    assert len(logged) == 1 and "cannot compile" in logged[0]
    with torch.no_grad():
        assert torch.equal(chain.separable_chain(x, stages), ours[0])


@pytest.mark.parametrize("defect", ["memory of forward", "memory of backward"])
def test_a_lack_of_memory_is_no_defect(
    defect: str, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    kernels, stages, x = use(monkeypatch), stages_of(block_of()), torch.rand(X)
    results(x, stages)
    kernels.defect = defect

    with pytest.raises(torch.cuda.OutOfMemoryError):
        results(x, stages)

    assert chain_triton.is_enabled() and not logged


def test_without_triton_pytorch_runs_after_one_warning(
    monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "utils.native.chain_kernels", raising=False)
    monkeypatch.delattr(utils.native, "chain_kernels", raising=False)
    stages, x = stages_of(block_of()), torch.rand(X)

    assert are_close(results(x, stages), plain_results(x, stages))
    assert len(logged) == 1 and "triton" in logged[0].split("run:")[1]


def test_the_chain_does_not_import_triton() -> None:
    code = "import sys, models.attention.lska; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("case", ["double", "empty", "hook", "traced", "compiled", "three stages", "mixed"])
def test_separate_convolutions_run_where_the_kernels_cannot(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels, block = use(monkeypatch), block_of()
    stages, x = stages_of(block), torch.rand(0 if case == "empty" else 2, 8, 9, 7)
    if case == "traced":
        torch.jit.trace(block.eval(), x, check_trace=False)
    elif case == "compiled":
        run = torch.compile(lambda v: chain.separable_chain(v, stages), backend="eager", fullgraph=True)
        assert torch.allclose(run(x), plain_results(x, stages)[0])
    elif case == "double":
        results(x.double(), [stage.double() for stage in stages])
    elif case == "hook":
        seen: list[Any] = []
        stages[1].register_forward_hook(lambda *values: seen.append(values))
        results(x, stages)
        assert seen
    elif case == "mixed":
        with pytest.raises(RuntimeError):
            results(x.bfloat16(), stages)
    else:
        results(x, stages[: 3 if case == "three stages" else 4])

    assert not kernels.calls


def test_autocast_chooses_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, stages = use(monkeypatch), stages_of(block_of())

    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = results(torch.rand(X), stages)

    assert [value.dtype for value in ours] == [torch.bfloat16, *[torch.float32] * 9]
    assert len(kernels.calls) == 4


def test_inference_mode_and_frozen_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, block, x = use(monkeypatch), block_of().requires_grad_(False), torch.rand(X)

    with torch.inference_mode():
        y = block.convolve(x)

    assert torch.allclose(y, plain_results(x, stages_of(block_of()))[0], atol=1e-6)
    (slope,) = torch.autograd.grad(block.convolve(x.requires_grad_()).sum(), x)
    assert slope.shape == x.shape
    assert kernels.calls.count("backward") == 2


def test_second_derivatives_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch)
    x = torch.rand(X, requires_grad=True)
    y = chain.separable_chain(x, stages_of(block_of()))
    (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)

    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def interpreted(marks: str, timeout: int) -> str:
    """Run the tests of the kernels by Triton's interpreter; return what pytest printed."""
    file = "tests/utils/native/interpreted_chain_kernels.py"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", file, "-m", marks]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_triton
def test_the_kernels_compute_the_chain() -> None:
    assert " passed" in interpreted("not slow", 300)


@needs_triton
@pytest.mark.slow
def test_the_kernels_compute_the_chain_of_many_shapes() -> None:
    assert " passed" in interpreted("slow", 3000)


def compile_kernel(name: str, dtype: str, last: bool, rows: bool, taps: int, single: bool = False) -> str:
    """Compile a kernel for an NVIDIA GPU of compute capability 9.0, which need not exist; return its PTX.

    Args:
        name: `_forward` or `_backward`.
        dtype: of the maps, in Triton's notation.
        last: whether the maps are channels last.
        rows: whether the convolution is along the rows.
        taps: length of the kernel.
        single: whether the number of channels is 1, which Triton makes a constant.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from utils.native import chain_kernels

    kernel = getattr(chain_kernels, name)
    pixels, channels = chain_kernels._TILES[last]
    constants: dict[str, Any] = {"TAPS": taps, "ROWS": rows, "LAST": last}
    constants |= {"BLOCK_P": pixels, "BLOCK_C": channels, **({"channels": 1} if single else {})}
    signature = {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in ("x", "y", "grad_x", "grad_y"):
            signature[argument] = f"*{dtype}"
        else:
            signature[argument] = "*fp32" if argument in ("weight", "bias", "parts") else "i32"
    source = ASTSource(kernel, signature, constants)
    options = {"num_warps": chain_kernels._WARPS}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return str(compiled.asm["ptx"])


def can_compile() -> bool:
    """Return whether triton is recent enough for `compile_kernel` and brings NVIDIA's assembler."""
    spec = find_spec("triton")  # importing it takes a while
    try:
        numbers = version("triton").split(".")
    except PackageNotFoundError:
        return False
    if spec is None or spec.origin is None or (int(numbers[0]), int(numbers[1])) < (3, 4):
        return False
    return (Path(spec.origin).parent / "backends/nvidia/bin/ptxas").exists()


@pytest.mark.skipif(not can_compile(), reason="no triton 3.4 or newer with ptxas")
class TestCompiler:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    @pytest.mark.parametrize(("name", "dtype"), [("_forward", "fp32"), ("_backward", "bf16")])
    def test_the_kernels_compile_for_a_gpu(self, name: str, dtype: str) -> None:
        ptx = compile_kernel(name, dtype, last=True, rows=False, taps=11)

        assert name in ptx and "st.global" in ptx

    @pytest.mark.slow
    @pytest.mark.parametrize("last", [True, False])
    @pytest.mark.parametrize("name", ["_forward", "_backward"])
    def test_every_variant_compiles(self, name: str, last: bool) -> None:
        for dtype, rows, taps in itertools.product(("fp32", "fp16", "bf16"), (True, False), (1, 17)):
            assert name in compile_kernel(name, dtype, last, rows, taps)
        for rows in (True, False):
            assert name in compile_kernel(name, "fp32", last, rows, 3, single=True)
