"""The detection head: logits of each anchor in each cell, and their decoding into boxes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from models.blocks.conv import Projection
from utils.base.errors import ConfigError
from utils.native.maps import can_decode, decode

_MOST_ANCHORS = 1000  # of one level


class Detect(nn.Module):
    """A 1x1 convolution per level; in eval mode the logits are decoded into boxes.

    Args:
        nc: number of classes.
        anchors: per level, a flat list of (w, h) in pixels; or the number of anchors per level, with
            placeholders that autoanchor replaces.
        ch: channels of each source map.

    Shape:
        training: levels x (B, ch, h, w) -> levels x (B, A, h, w, 5 + nc) logits
        eval: -> ((B, N, 5 + nc) decoded, the same logits); with `export` (decoded,)

    A head of another task may have `linear` more outputs per anchor, which are decoded as they are.
    """

    anchors: Tensor
    task = "detect"
    linear = 0
    export = False
    dynamic = False  # attributes of the original that scripts set
    inplace = True
    placeholders = False

    def __init__(self, nc: int = 80, anchors: list[list[float]] | int = 3, ch: tuple[int, ...] = ()) -> None:
        super().__init__()
        if isinstance(anchors, int) and not 1 <= anchors <= _MOST_ANCHORS:
            raise ConfigError(f"anchors: {anchors!r:.20} per level, expected 1 to {_MOST_ANCHORS}")
        levels = [list(range(2 * anchors))] * len(ch) if isinstance(anchors, int) else list(anchors)
        if len(levels) != len(ch) or len({len(level) for level in levels}) != 1 or len(levels[0]) % 2:
            raise ConfigError(
                f"Detect reads {len(ch)} layers, so anchors must be {len(ch)} lists of w,h pairs of equal "
                f"length, found {len(levels)} of lengths {[len(level) for level in levels]}"
            )
        if nc < 1:
            raise ConfigError(f"nc is {nc}, expected at least 1 class")
        sides = [side for level in levels for side in level]
        if not isinstance(anchors, int) and not all(map(_is_side, sides)):
            raise ConfigError("anchors: widths and heights are pixels, numbers from 0 to 100000")
        self.nc = nc
        self.no = nc + 5 + self.linear
        self.nl = len(levels)
        self.na = len(levels[0]) // 2
        self.placeholders = isinstance(anchors, int)
        self.strides = [0.0] * self.nl  # floats, which exporters trace as constants
        self._listed = levels
        self.register_buffer("anchors", torch.zeros(self.nl, self.na, 2))  # filled by set_strides
        self.m = nn.ModuleList(Projection(c, self.no * self.na) for c in ch)
        self._grids: dict[tuple[int, int, int, torch.device], tuple[Tensor, Tensor]] = {}

    @property
    def stride(self) -> Tensor:
        """Pixels per cell of each level, (nl,) on the CPU."""
        return torch.tensor(self.strides, dtype=torch.float32, device="cpu")

    @stride.setter
    def stride(self, strides: Tensor) -> None:
        self.strides = [float(stride) for stride in strides]
        self._grids.clear()

    @property
    def grid(self) -> list[Tensor]:
        """Empty grids; the original caches some here, ours are private."""
        return [torch.empty(0) for _ in range(self.nl)]

    @property
    def anchor_grid(self) -> list[Tensor]:
        """Anchors in pixels, (1, A, 1, 1, 2) for each level; the original has this list."""
        return [level.view(1, self.na, 1, 1, 2) for level in self.anchors_px()]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled head, of ours or of the original with its grids."""
        buffers = {name: value for name, value in state["_buffers"].items() if name == "anchors"}
        state = {key: value for key, value in state.items() if key not in ("grid", "anchor_grid")}
        strides = state.pop("stride", None)
        super().__setstate__({**state, "_buffers": buffers})
        self._grids = {}
        if strides is not None:
            self.strides = [float(stride) for stride in strides]

    def forward(self, sources: list[Tensor]) -> list[Tensor] | tuple[Any, ...]:
        logits = [conv(x) for conv, x in zip(self.m, sources, strict=True)]
        maps = [self._split(level) for level in logits]
        if self.training:
            return maps
        if not self.export and can_decode(logits):
            return decode(logits, self.strides, self.anchors_px(), self.linear), maps
        decoded = torch.cat([self._decode(level, each.contiguous()) for level, each in enumerate(maps)], 1)
        return (decoded,) if self.export else (decoded, maps)

    def _split(self, logits: Tensor) -> Tensor:
        b, _, h, w = logits.shape
        return logits.view(b, self.na, self.no, h, w).permute(0, 1, 3, 4, 2)

    def _decode(self, level: int, logits: Tensor) -> Tensor:
        """Decode logits (B, A, h, w, no) to boxes in pixels and scores, (B, A h w, no) float32.

        FP16 would round coordinates above 1024 px to whole pixels.
        """
        b, _, h, w, _ = logits.shape
        # A slice of everything would be an operator `alias` in exported programs, which Core ML lacks.
        scores = (logits[..., : self.no - self.linear] if self.linear else logits).float().sigmoid()
        corner, size = self._grid(level, h, w, logits.device)
        xy = (scores[..., :2] * 2 + corner) * self.strides[level]
        doubled = scores[..., 2:4] * 2
        wh = doubled * doubled * size  # some runtimes lack the operator for squares
        parts = [xy, wh, scores[..., 4:]]
        if self.linear:
            parts.append(logits[..., self.no - self.linear :].float())
        return torch.cat(parts, -1).view(b, self.na * h * w, -1)

    @property
    def mask_ratio(self) -> int:
        """Pixels of the input per pixel of the mask prototypes that a head like this would have."""
        return max(round(self.strides[0] / 2), 1)

    def maps_of(self, output: Any) -> list[Tensor]:
        """Return the logits of each level from what the head returns in training."""
        maps: list[Tensor] = output
        return maps

    def _grid(self, level: int, h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return cell corners - 0.5 as (x, y), (1, 1, h, w, 2), and anchors in pixels, (1, A, 1, 1, 2)."""
        key = level, h, w, device
        if self.export:
            return self._make_grid(level, h, w, device)
        if key not in self._grids:
            with torch.inference_mode(False):  # cached for later passes, which may need gradients
                self._grids[key] = self._make_grid(level, h, w, device)
        return self._grids[key]

    def _make_grid(self, level: int, h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
        rows, columns = torch.meshgrid(
            torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij"
        )
        corner = torch.stack((columns, rows), -1).float().view(1, 1, h, w, 2) - 0.5
        size = self.anchors[level].detach().float() * self.strides[level]
        return corner, size.view(1, self.na, 1, 1, 2)

    def set_strides(self, strides: list[float]) -> None:
        """Set the strides, and convert the anchors of the yaml from pixels to grid units."""
        self.strides = [float(stride) for stride in strides]
        self.set_anchors(torch.tensor(self._listed, dtype=torch.float32, device="cpu").view(self.nl, -1, 2))

    def set_anchors(self, pixels: Tensor) -> None:
        """Set anchors, (nl, na, 2) in pixels; reverse them if sizes and strides are in opposite order."""
        pixels = pixels.detach().float().cpu()
        areas = pixels.prod(-1).mean(-1)
        if (areas[-1] - areas[0]) * (self.strides[-1] - self.strides[0]) < 0:
            pixels = pixels.flip(0)
        self.placeholders = bool((pixels == 0).any())
        self.anchors = (pixels / self.stride.view(-1, 1, 1)).to(self.anchors)
        self.forget_grids()

    def anchors_px(self) -> Tensor:
        """Return the anchors in pixels, (nl, na, 2)."""
        return self.anchors.float() * self.stride.to(self.anchors.device).view(-1, 1, 1)

    def forget_grids(self) -> None:
        """Clear cached grids after anchors, device or precision have changed."""
        self._grids.clear()

    def init_biases(self) -> None:
        """Shift the biases to priors: 8 objects per 640 px image, all classes about equally frequent.

        Lin et al., Focal Loss, arXiv:1708.02002, section 3.3.
        """
        if self.anchors.is_meta:
            return
        for conv, stride in zip(self.m, self.stride.tolist(), strict=True):
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            with torch.no_grad():
                bias = conv.bias.view(self.na, -1)
                bias[:, 4] += math.log(8 / (640 / stride) ** 2)
                bias[:, 5 : 5 + self.nc] += math.log(0.6 / (self.nc - 0.99999))


def _is_side(value: object) -> bool:
    """Return whether a value can be a side of an anchor; 0 stands for one that autoanchor will find."""
    return isinstance(value, int | float) and 0 <= value <= 100_000
