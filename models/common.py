"""All blocks that a yaml can name, each with the rule for its arguments and channels.

To add a block: write its class, add its name to a line below, name it in a yaml.
"""

from __future__ import annotations

from torch import nn

from models.attention.controls import (
    CBAM,
    ECA,
    EMA,
    SE,
    CoordAtt,
    Depthwise,
    Gate1x1,
    Residual1x1,
    SimAM,
)
from models.attention.lska import LKA, LSKA, LKATrivial, LSKATrivial
from models.attention.lska_blocks import C3LSKA, SPPFLSKA, LSKAttention
from models.attention.van import VANStage
from models.blocks.conv import (
    Conv,
    CrossConv,
    DWConv,
    DWConvTranspose2d,
    GhostBottleneck,
    GhostConv,
    MixConv2d,
)
from models.blocks.csp import (
    C3,
    C3SPP,
    C3TR,
    Bottleneck,
    BottleneckCSP,
    C3Ghost,
    C3x,
    TransformerBlock,
    TransformerLayer,
)
from models.blocks.pool import SPP, SPPF, Concat, Contract, Expand, Focus
from models.registry import (
    any_channels,
    channels_and_repeats,
    depth_to_space,
    new_channels,
    register,
    same_channels,
    space_to_depth,
    sum_of_channels,
)
from utils.base.yolov5_names import serve

# Large kernel attention: as a layer, in C3, in SPPF, as a backbone.
register(same_channels, LSKA, LKA, LSKATrivial, LKATrivial, LSKAttention)
register(channels_and_repeats, C3LSKA, C3_LSKA=C3LSKA)
register(new_channels, SPPFLSKA, SPPF_LSKA=SPPFLSKA)
register(channels_and_repeats, VANStage)
# What they are compared with; each is also a `design` of C3LSKA, SPPFLSKA and LSKAttention.
register(same_channels, SE, CBAM, ECA, CoordAtt, SimAM, EMA, Gate1x1, Residual1x1, Depthwise)

# The blocks of YOLOv5.
register(new_channels, Conv, DWConv, GhostConv, CrossConv, MixConv2d, Focus, DWConvTranspose2d)
register(new_channels, Bottleneck, GhostBottleneck, SPP, SPPF, C3SPP)
register(new_channels, TransformerBlock)
register(channels_and_repeats, C3, C3x, C3TR, C3Ghost, BottleneckCSP)
register(sum_of_channels, Concat)
register(space_to_depth, Contract)
register(depth_to_space, Expand)

# PyTorch's modules, written nn.X or X.
register(new_channels, nn.Conv2d, nn.ConvTranspose2d)
register(same_channels, nn.BatchNorm2d)
register(
    any_channels, nn.Upsample, nn.MaxPool2d, nn.AvgPool2d, nn.ZeroPad2d, nn.Identity, nn.Dropout, nn.Dropout2d
)
register(any_channels, nn.SiLU, nn.ReLU, nn.LeakyReLU, nn.Hardswish, nn.Mish, nn.GELU)

__all__ = [
    "C3",
    "CBAM",
    "ECA",
    "EMA",
    "SE",
    "C3LSKA",
    "C3SPP",
    "C3TR",
    "LKA",
    "LSKA",
    "SPP",
    "SPPF",
    "SPPFLSKA",
    "Bottleneck",
    "BottleneckCSP",
    "C3Ghost",
    "C3x",
    "Concat",
    "Contract",
    "Conv",
    "CoordAtt",
    "CrossConv",
    "DWConv",
    "DWConvTranspose2d",
    "Depthwise",
    "Expand",
    "Focus",
    "Gate1x1",
    "GhostBottleneck",
    "GhostConv",
    "LKATrivial",
    "LSKATrivial",
    "LSKAttention",
    "MixConv2d",
    "Residual1x1",
    "SimAM",
    "TransformerBlock",
    "TransformerLayer",
    "VANStage",
]
# Where the original has these classes, by which pickles and other programs find them.
for _name in __all__:
    globals()[_name].__module__ = "models.common"
__getattr__, __dir__, _old_names = serve("models.common")  # the original's module has more names
__all__ += _old_names
