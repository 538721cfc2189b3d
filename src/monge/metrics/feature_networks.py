"""Small classifiers whose last hidden layer is a space to compare images in.

Each takes images in [-1, 1] and returns (features, logits). Parameter names are those of the
weights that are published for them, and the preparation of an image (range, size, colours) is the
network's own, since its weights are worth nothing without it.

References:
    | Gradient-Based Learning Applied to Document Recognition (LeCun et al., 1998), LeNet-5
    | Deep Residual Learning for Image Recognition (He et al., 2015), Sec. 4.2, option A
    |   -- https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Images = Float[Tensor, "batch channels height width"]
Features = Float[Tensor, "batch d"]
Logits = Float[Tensor, "batch classes"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and maximum pooling: (B, 1, 28 or 32, 28 or 32) to 84 features.

    Images of 28 x 28 are enlarged to 32 x 32 bilinearly, as in its training; surrounding them
    with zeros instead costs half a percent of accuracy.
    """

    side = 32

    def __init__(self) -> None:
        super().__init__()
        self.convnet = nn.ModuleDict(
            {"c1": nn.Conv2d(1, 6, 5), "c3": nn.Conv2d(6, 16, 5), "c5": nn.Conv2d(16, 120, 5)}
        )
        self.fc = nn.ModuleDict({"f6": nn.Linear(120, 84), "f7": nn.Linear(84, 10)})

    def forward(self, x: Images) -> tuple[Features, Logits]:
        h = (x + 1) / 2
        if h.shape[-1] != self.side:
            h = F.interpolate(h, size=self.side, mode="bilinear", align_corners=False)
        h = F.max_pool2d(self.convnet["c1"](h).relu(), 2)
        h = F.max_pool2d(self.convnet["c3"](h).relu(), 2)
        h = self.convnet["c5"](h).flatten(1).relu()
        features = self.fc["f6"](h).relu()
        return features, self.fc["f7"](features)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut without parameters (option A).

    Where the size halves, the shortcut takes every other pixel and adds channels of zeros.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.stride = 1 if channels_in == channels else 2
        self.extra = (channels - channels_in) // 2
        self.conv1 = nn.Conv2d(channels_in, channels, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Images) -> Images:
        h = self.bn1(self.conv1(x)).relu()
        h = self.bn2(self.conv2(h))
        kept = x[:, :, :: self.stride, :: self.stride]
        return (h + F.pad(kept, (0, 0, 0, 0, self.extra, self.extra))).relu()


class ResNet20(nn.Module):
    """The residual network of 20 layers for CIFAR-10: (B, 3, 32, 32) to 64 features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(BasicBlock(16, 16) for _ in range(3)))
        self.layer2 = nn.Sequential(BasicBlock(16, 32), BasicBlock(32, 32), BasicBlock(32, 32))
        self.layer3 = nn.Sequential(BasicBlock(32, 64), BasicBlock(64, 64), BasicBlock(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Images) -> tuple[Features, Logits]:
        mean, std = (x.new_tensor(c)[:, None, None] for c in (IMAGENET_MEAN, IMAGENET_STD))
        h = self.bn1(self.conv1(((x + 1) / 2 - mean) / std)).relu()
        features = self.layer3(self.layer2(self.layer1(h))).mean((2, 3))
        return features, self.linear(features)
