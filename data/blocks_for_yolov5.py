"""The blocks of YOLOv5-LSKA that YOLOv5 lacks, for files of `export.py --include yolov5` that contain them.

Append the content of this file to YOLOv5's models/common.py. It serves to run such files, to validate and to
export them; they hold complete objects, so the classes need no constructors.
"""

# ruff: noqa: F821 - C3 and SPPF are above, where this is appended

import torch
from torch import Tensor, nn


class LSKA(nn.Module):
    """Large separable kernel attention (Lau, Po and Rehman, arXiv:2309.01439)."""

    def forward(self, x: Tensor) -> Tensor:
        near = self.conv0v(self.conv0h(x))
        return x * self.conv1(self.conv_spatial_v(self.conv_spatial_h(near)))


class LKA(nn.Module):
    """Large kernel attention (Guo et al., arXiv:2202.09741)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv1(self.conv_spatial(self.conv0(x)))


class LSKATrivial(nn.Module):
    """Attention with a pair of 1-D kernels without dilation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv1(self.conv0v(self.conv0h(x)))


class LKATrivial(nn.Module):
    """Attention with one k x k kernel."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv1(self.conv0(x))


class LSKAttention(nn.Module):
    """VAN's attention block: a gate between two 1x1 convolutions, with a shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x))))


class C3LSKA(C3):
    """C3 with a gate behind its last convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(super().forward(x))


class SPPFLSKA(SPPF):
    """SPPF with a gate before its last convolution."""

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.cv1(x)]
        for _ in range(3):
            levels.append(self.m(levels[-1]))
        return self.cv2(self.attention(torch.cat(levels, 1)))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., arXiv:1603.09382)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        return x * nn.functional.dropout(x.new_ones(len(x), 1, 1, 1), self.rate)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PatchEmbedding(nn.Module):
    """Overlapping patch embedding of VAN."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class DepthwiseConv(nn.Module):
    """The depth-wise convolution of VAN's MLP."""

    def forward(self, x: Tensor) -> Tensor:
        return self.dwconv(x)


class ConvMLP(nn.Module):
    """The MLP of VAN."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.dwconv(self.fc1(x))))


class VANBlock(nn.Module):
    """Attention, then MLP, each with a shortcut and a scale per channel."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * self.attn(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))


class VANStage(nn.Module):
    """A stage of VAN: patch embedding, blocks, norm."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for block in self.block:
            x = block(x)
        return self.norm(x)


class ClassifyLinear(nn.Module):
    """Classifier of a map: global average pool, dropout, linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.drop(x.mean((2, 3))))
