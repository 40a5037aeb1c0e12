"""The Inception network that FID is defined with: TensorFlow's graph of 2015-12-05.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (arXiv 1512.00567), with
the two oddities of that graph, without which features differ: 3 x 3 average pooling divides by the
pixels inside the image, not by nine, and the last block pools by maximum where the one before takes
the average. Parameters carry the names of the published PyTorch conversion of the weights.

All maps are (N, C, H, W); a 299 x 299 input has 35, 17 and 8 pixels in the blocks 5, 6 and 7.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RESOLUTION, FEATURES, CLASSES = 299, 2048, 1008

Size = int | tuple[int, int]
Pool = Callable[[Tensor], Tensor]


class Conv(nn.Module):
    """Convolution without bias, batch normalisation with frozen statistics, ReLU.

    Padding keeps the resolution ("same"), unless `valid`: then there is none.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: Size, stride: int = 1, *, valid: bool = False
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if valid else (height // 2, width // 2)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the activations."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class MixedA(nn.Module):
    """Blocks 5b to 5d: branches of one 1 x 1, one 5 x 5, two 3 x 3 and an average pooling."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1 = Conv(inputs, 48, 1)
        self.branch5x5_2 = Conv(48, 64, 5)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3)
        self.branch_pool = Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the branches side by side, 224 + `pooled` channels."""
        one = self.branch1x1(x)
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([one, five, three, self.branch_pool(average_pool(x))], 1)


class MixedB(nn.Module):
    """Block 6a: halves the resolution, adding 480 channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, 3, 2, valid=True)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3, 2, valid=True)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the branches side by side."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, halving_pool(x)], 1)


class MixedC(nn.Module):
    """Blocks 6b to 6e: 7 x 7 kernels as pairs of 1 x 7 and 7 x 1; 768 channels in and out."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(768, 192, 1)
        self.branch7x7_1 = Conv(768, inner, 1)
        self.branch7x7_2 = Conv(inner, inner, (1, 7))
        self.branch7x7_3 = Conv(inner, 192, (7, 1))
        self.branch7x7dbl_1 = Conv(768, inner, 1)
        self.branch7x7dbl_2 = Conv(inner, inner, (7, 1))
        self.branch7x7dbl_3 = Conv(inner, inner, (1, 7))
        self.branch7x7dbl_4 = Conv(inner, inner, (7, 1))
        self.branch7x7dbl_5 = Conv(inner, 192, (1, 7))
        self.branch_pool = Conv(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the branches side by side, 192 channels each."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(average_pool(x))], 1)


class MixedD(nn.Module):
    """Block 7a: halves the resolution; 768 channels in, 1280 out."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(768, 192, 1)
        self.branch3x3_2 = Conv(192, 320, 3, 2, valid=True)
        self.branch7x7x3_1 = Conv(768, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1))
        self.branch7x7x3_4 = Conv(192, 192, 3, 2, valid=True)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the branches side by side."""
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat(
            [self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), halving_pool(x)], 1
        )


class MixedE(nn.Module):
    """Blocks 7b and 7c: branches that fork into 1 x 3 and 3 x 1; 2048 channels out."""

    def __init__(self, inputs: int, pool: Pool) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 320, 1)
        self.branch3x3_1 = Conv(inputs, 384, 1)
        self.branch3x3_2a = Conv(384, 384, (1, 3))
        self.branch3x3_2b = Conv(384, 384, (3, 1))
        self.branch3x3dbl_1 = Conv(inputs, 448, 1)
        self.branch3x3dbl_2 = Conv(448, 384, 3)
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1))
        self.branch_pool = Conv(inputs, 192, 1)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Returns the branches side by side."""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(single),
                self.branch3x3_2b(single),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(self.pool(x)),
            ],
            1,
        )


class InceptionNetwork(nn.Module):
    """The whole network, from an image in [-1, 1] to the pooled features that FID compares.

    `fc` maps features to logits of 1008 classes; FID does without, the published weights hold it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2, valid=True)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, valid=True)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, valid=True)
        self.Mixed_5b = MixedA(192, pooled=32)
        self.Mixed_5c = MixedA(256, pooled=64)
        self.Mixed_5d = MixedA(288, pooled=64)
        self.Mixed_6a = MixedB(288)
        self.Mixed_6b = MixedC(128)
        self.Mixed_6c = MixedC(160)
        self.Mixed_6d = MixedC(160)
        self.Mixed_6e = MixedC(192)
        self.Mixed_7a = MixedD()
        self.Mixed_7b = MixedE(1280, average_pool)
        self.Mixed_7c = MixedE(2048, max_pool)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the "pool3" features (N, 2048) of (N, 3, H, W) images, H and W at least 75."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(halving_pool(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(halving_pool(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))


def average_pool(x: Tensor) -> Tensor:
    """Returns the mean of the 3 x 3 neighbours that lie inside the image."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def max_pool(x: Tensor) -> Tensor:
    """Returns the maximum of the 3 x 3 neighbours."""
    return F.max_pool2d(x, 3, stride=1, padding=1)


def halving_pool(x: Tensor) -> Tensor:
    """Returns the maximum of every second 3 x 3 window; no padding."""
    return F.max_pool2d(x, 3, stride=2)
