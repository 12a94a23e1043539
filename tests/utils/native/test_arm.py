"""The kernels for ARM: they use NEON, and an emulated processor computes what this one does.

Needs a cross-compiler and an emulator: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from utils.native.chain import separable_chain
from utils.native.library import HERE, _compile, library
from utils.native.maps import silu_
from utils.native.nms import keep_boxes

GCC, DUMP, EMULATOR = "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objdump", "qemu-aarch64"
needs_compiler = pytest.mark.skipif(not (shutil.which(GCC) and shutil.which(DUMP)), reason=f"no {GCC}")
needs_emulator = pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"no {EMULATOR}")

SHAPE, TAPS, DILATIONS, BOXES = (2, 20, 9, 7), (3, 3, 5, 5), (1, 1, 2, 2), 400
# Reads maps, weights with biases, and boxes from stdin; writes the results to stdout.
PROGRAM = """
#include <stdio.h>
#include "chain.c"
#include "maps.c"
#include "norm_silu.c"
#include "nms.c"

#define N (2 * 20 * 9 * 7)
static float x[N], slope[N], y[N], back[N], values[4][20 * 6], grads[4][20 * 6];
static double boxes[400 * 4];
static int64_t kept[400];

int main(void) {
    const int64_t taps[4] = {3, 3, 5, 5}, dilations[4] = {1, 1, 2, 2};
    stage stages[4];
    shape s = {2, 20, 9, 7, 20 * 9 * 7, 9 * 7, 1, 2, 2};
    if (fread(x, sizeof x, 1, stdin) + fread(slope, sizeof slope, 1, stdin) != 2) return 1;
    for (int i = 0; i < 4; i++) {
        if (fread(values[i], 4, 20 * (taps[i] + 1), stdin) != 20 * (size_t)(taps[i] + 1)) return 1;
        float *bias = values[i] + 20 * taps[i];
        stages[i] = (stage){taps[i], dilations[i], values[i], bias, grads[i], grads[i] + 20 * taps[i]};
    }
    if (fread(boxes, sizeof boxes, 1, stdin) != 1) return 1;
    if (chain_forward(&s, stages, x, y) || chain_backward(&s, stages, x, slope, back)) return 2;
    silu(x, N, 2);
    int64_t count = keep_boxes(boxes, 400, 0.5, 400, kept);
    fwrite(y, sizeof y, 1, stdout);
    fwrite(back, sizeof back, 1, stdout);
    for (int i = 0; i < 4; i++) fwrite(grads[i], 4, 20 * (taps[i] + 1), stdout);
    fwrite(x, sizeof x, 1, stdout);
    fwrite(kept, sizeof *kept, count, stdout);
    return 0;
}
"""


@needs_compiler
@pytest.mark.parametrize("command", [[GCC], [GCC, "-mtune=neoverse-v1"]])
def test_vectors_are_neon(command: list[str], tmp_path: Path) -> None:
    made = _compile(command, tmp_path / "kernels.so", machine="aarch64")
    text = subprocess.run([DUMP, "-d", str(made)], capture_output=True, text=True, check=True).stdout
    vectors = len(re.findall(r"\sfmla\s+v\d+\.4s", text))
    assert vectors > 100  # 165 with GCC 12; next to none where it computes numbers one by one
    assert len(re.findall(r"\sfmadd\s", text)) < vectors / 20


@needs_compiler
@needs_emulator
def test_an_emulated_processor_gives_the_same_results(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    x, slope = torch.randn(2, *SHAPE, generator=random)
    stages = []
    for index, (length, dilation) in enumerate(zip(TAPS, DILATIONS, strict=True)):
        along = slice(None) if index % 2 == 0 else slice(None, None, -1)
        kernel, gaps = (1, length)[along], (1, dilation)[along]
        stages.append(nn.Conv2d(20, 20, kernel, padding="same", dilation=gaps, groups=20))
    corner = torch.rand(BOXES, 2, generator=random) * 60
    boxes = torch.cat((corner, corner + 30 * torch.rand(BOXES, 2, generator=random)), 1).double()
    values = [value.detach() for stage in stages for value in stage.parameters()]
    given = b"".join(value.contiguous().numpy().tobytes() for value in (x, slope, *values, boxes))

    (tmp_path / "main.c").write_text(PROGRAM)
    program = tmp_path / "program"
    flags = ["-O3", "-std=gnu11", "-ffp-contract=fast", "-march=armv8-a", "-fopenmp", "-static", f"-I{HERE}"]
    subprocess.run([GCC, *flags, str(tmp_path / "main.c"), "-o", str(program), "-lm"], check=True)
    done = subprocess.run([EMULATOR, str(program)], input=given, capture_output=True, check=True, timeout=60)

    assert library() is not None
    inputs = x.clone().requires_grad_()
    y = separable_chain(inputs, stages)
    y.backward(slope)
    assert inputs.grad is not None
    grads = [value.grad for stage in stages for value in stage.parameters()]
    expected = [y.detach(), inputs.grad, *grads, silu_(x.clone())]
    numbers = sum(value.numel() for value in expected if value is not None)
    found = np.frombuffer(done.stdout[: 4 * numbers], np.float32)
    known = torch.cat([value.flatten() for value in expected if value is not None]).numpy()
    np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-5)
    kept = np.frombuffer(done.stdout[4 * numbers :], np.int64)
    assert kept.tolist() == keep_boxes(boxes, 0.5, BOXES).tolist() and 20 < len(kept) < BOXES
