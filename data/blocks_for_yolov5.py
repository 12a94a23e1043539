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


class SigmoidGate(nn.Module):
    """Base class of gates x * scale * sigmoid(z)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


class SE(SigmoidGate):
    """Squeeze and excitation (Hu et al., arXiv:1709.01507)."""

    def attention(self, x: Tensor) -> Tensor:
        return self.scale * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class CBAM(SigmoidGate):
    """Channel and spatial attention (Woo et al., arXiv:1807.06521)."""

    def attention(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        channels = self.scale * sum(self.fc2(self.fc1(one).relu()) for one in pooled).sigmoid()
        x = x * channels
        maps = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        return channels * self.scale * self.spatial(maps).sigmoid()


class ECA(SigmoidGate):
    """Efficient channel attention (Wang et al., arXiv:1910.03151)."""

    def attention(self, x: Tensor) -> Tensor:
        return self.scale * self.conv(x.mean((2, 3))[:, None]).sigmoid().transpose(1, 2)[..., None]


class CoordAtt(SigmoidGate):
    """Coordinate attention (Hou et al., arXiv:2103.02907)."""

    def attention(self, x: Tensor) -> Tensor:
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        mixed = self.act(self.bn1(self.conv1(torch.cat((rows, columns), 2))))
        rows, columns = mixed.split((x.shape[2], x.shape[3]), 2)
        rows, columns = self.conv_h(rows).sigmoid(), self.conv_w(columns.transpose(2, 3)).sigmoid()
        return self.scale * rows * self.scale * columns


class SimAM(SigmoidGate):
    """Attention without weights (Yang et al., PMLR 139)."""

    def attention(self, x: Tensor) -> Tensor:
        square = (x - x.mean((2, 3), keepdim=True)).square()
        variance = square.sum((2, 3), keepdim=True) / max(x.shape[2] * x.shape[3] - 1, 1)
        gate = (square / (4 * (variance + 1e-4)) + 0.5).sigmoid()
        return gate if self.strength is None else 1 + self.strength * (2 * gate - 1)


class EMA(SigmoidGate):
    """Efficient multi-scale attention (Ouyang et al., arXiv:2305.13563)."""

    def attention(self, x: Tensor) -> Tensor:
        width, (height, length) = x.shape[1] // self.groups, x.shape[2:]
        groups = x.reshape(-1, width, height, length)
        rows, columns = groups.mean(3, keepdim=True), groups.mean(2, keepdim=True).transpose(2, 3)
        rows, columns = self.conv1x1(torch.cat((rows, columns), 2)).split((height, length), 2)
        one = self.gn(groups * rows.sigmoid() * columns.transpose(2, 3).sigmoid())
        pair = one, self.conv3x3(groups)
        maps = sum(
            (by.mean((2, 3), keepdim=True).softmax(1) * of).sum(1, keepdim=True)
            for by, of in (pair, pair[::-1])
        )
        return self.scale * maps.sigmoid().expand(-1, width, -1, -1).reshape(x.shape)


class Gate1x1(SigmoidGate):
    """A gate of a 1x1 convolution."""

    def attention(self, x: Tensor) -> Tensor:
        return self.conv1(x)


class Residual1x1(nn.Module):
    """A 1x1 convolution with a shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Depthwise(nn.Module):
    """A k x k depth-wise convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
