"""Weights from a formula, and the Inception network a second time, as a table of convolutions.

Nothing here is shared with `hvae.metrics.features.inception_network`: the table is read off the
published key names, and the arithmetic is torch.nn.functional's and plain sums.
"""

import functools
import math
import zlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# name, inputs, outputs, kernel height and width, stride, padding in height and width
Row = tuple[str, int, int, int, int, int, int, int]


def _same(name: str, inputs: int, outputs: int, height: int, width: int) -> Row:
    return (name, inputs, outputs, height, width, 1, (height - 1) // 2, (width - 1) // 2)


def _bare(name: str, inputs: int, outputs: int, stride: int) -> Row:
    return (name, inputs, outputs, 3, 3, stride, 0, 0)


STEM = [
    _bare("Conv2d_1a_3x3", 3, 32, 2),
    _bare("Conv2d_2a_3x3", 32, 32, 1),
    _same("Conv2d_2b_3x3", 32, 64, 3, 3),
    _same("Conv2d_3b_1x1", 64, 80, 1, 1),
    _bare("Conv2d_4a_3x3", 80, 192, 1),
]


def _block_5(inputs: int, pooled: int) -> list[list[Row]]:
    return [
        [_same("branch1x1", inputs, 64, 1, 1)],
        [_same("branch5x5_1", inputs, 48, 1, 1), _same("branch5x5_2", 48, 64, 5, 5)],
        [
            _same("branch3x3dbl_1", inputs, 64, 1, 1),
            _same("branch3x3dbl_2", 64, 96, 3, 3),
            _same("branch3x3dbl_3", 96, 96, 3, 3),
        ],
        [_same("branch_pool", inputs, pooled, 1, 1)],
    ]


def _block_6(inner: int) -> list[list[Row]]:
    return [
        [_same("branch1x1", 768, 192, 1, 1)],
        [
            _same("branch7x7_1", 768, inner, 1, 1),
            _same("branch7x7_2", inner, inner, 1, 7),
            _same("branch7x7_3", inner, 192, 7, 1),
        ],
        [
            _same("branch7x7dbl_1", 768, inner, 1, 1),
            _same("branch7x7dbl_2", inner, inner, 7, 1),
            _same("branch7x7dbl_3", inner, inner, 1, 7),
            _same("branch7x7dbl_4", inner, inner, 7, 1),
            _same("branch7x7dbl_5", inner, 192, 1, 7),
        ],
        [_same("branch_pool", 768, 192, 1, 1)],
    ]


def _block_7(inputs: int) -> list[list[Row]]:
    """A branch whose last two names end in a and b forks there."""
    return [
        [_same("branch1x1", inputs, 320, 1, 1)],
        [
            _same("branch3x3_1", inputs, 384, 1, 1),
            _same("branch3x3_2a", 384, 384, 1, 3),
            _same("branch3x3_2b", 384, 384, 3, 1),
        ],
        [
            _same("branch3x3dbl_1", inputs, 448, 1, 1),
            _same("branch3x3dbl_2", 448, 384, 3, 3),
            _same("branch3x3dbl_3a", 384, 384, 1, 3),
            _same("branch3x3dbl_3b", 384, 384, 3, 1),
        ],
        [_same("branch_pool", inputs, 192, 1, 1)],
    ]


BLOCKS: dict[str, list[list[Row]]] = {
    "Mixed_5b": _block_5(192, 32),
    "Mixed_5c": _block_5(256, 64),
    "Mixed_5d": _block_5(288, 64),
    "Mixed_6a": [
        [_bare("branch3x3", 288, 384, 2)],
        [
            _same("branch3x3dbl_1", 288, 64, 1, 1),
            _same("branch3x3dbl_2", 64, 96, 3, 3),
            _bare("branch3x3dbl_3", 96, 96, 2),
        ],
    ],
    "Mixed_6b": _block_6(128),
    "Mixed_6c": _block_6(160),
    "Mixed_6d": _block_6(160),
    "Mixed_6e": _block_6(192),
    "Mixed_7a": [
        [_same("branch3x3_1", 768, 192, 1, 1), _bare("branch3x3_2", 192, 320, 2)],
        [
            _same("branch7x7x3_1", 768, 192, 1, 1),
            _same("branch7x7x3_2", 192, 192, 1, 7),
            _same("branch7x7x3_3", 192, 192, 7, 1),
            _bare("branch7x7x3_4", 192, 192, 2),
        ],
    ],
    "Mixed_7b": _block_7(1280),
    "Mixed_7c": _block_7(2048),
}


def rows() -> Iterator[tuple[str, Row]]:
    """Every convolution with its full name."""
    yield from ((row[0], row) for row in STEM)
    for block, branches in BLOCKS.items():
        yield from ((f"{block}.{row[0]}", row) for branch in branches for row in branch)


def shapes() -> dict[str, tuple[int, ...]]:
    """Key and shape of every tensor of the published file, counters left out."""
    found: dict[str, tuple[int, ...]] = {}
    for name, (_, inputs, outputs, height, width, *_) in rows():
        found[f"{name}.conv.weight"] = (outputs, inputs, height, width)
        for key in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.bn.{key}"] = (outputs,)
    return found | {"fc.weight": (1008, 2048), "fc.bias": (1008,)}


@functools.cache
def random_weights() -> dict[str, Tensor]:
    """Weights under the published names, each drawn under a seed of its own name.

    Activations keep their size through the network, and no batch normalisation is trivial. Shared
    by all who ask: not to be changed in place.
    """
    return {name: _random(name, shape) for name, shape in shapes().items()}


def _random(name: str, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    uniform = torch.rand(shape, generator=generator)
    if name.endswith((".running_var", "bn.weight")):
        return 0.5 + uniform
    if len(shape) == 1:
        return 0.4 * uniform - 0.2
    fan_in = math.prod(shape[1:])
    return (2 * uniform - 1) * (6 / fan_in) ** 0.5


def reference_layers(weights: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """The output of each layer by name, from the stem to "pool3" and "logits"."""
    found: dict[str, Tensor] = {}
    for row in STEM:
        if row[0] == "Conv2d_3b_1x1":
            x = F.max_pool2d(x, 3, 2)
        x = found[row[0]] = _convolve(weights, row[0], row, x)
    x = F.max_pool2d(x, 3, 2)
    for block, branches in BLOCKS.items():
        x = found[block] = torch.cat(list(_branches(weights, block, branches, x)), 1)
    found["pool3"] = x.flatten(2).sum(2) / (x.shape[2] * x.shape[3])
    found["logits"] = found["pool3"] @ weights["fc.weight"].T + weights["fc.bias"]
    return found


def _branches(
    weights: dict[str, Tensor], block: str, branches: list[list[Row]], x: Tensor
) -> Iterator[Tensor]:
    for branch in branches:
        h = x
        if branch[0][0] == "branch_pool":
            h = maxima(x) if block == "Mixed_7c" else means(x)
        for row in branch:
            h_next = _convolve(weights, f"{block}.{row[0]}", row, h)
            if row[0].endswith(("a", "b")):
                yield h_next
            else:
                h = h_next
        if not branch[-1][0].endswith("b"):
            yield h
    if block in ("Mixed_6a", "Mixed_7a"):
        yield F.max_pool2d(x, 3, 2)


def _convolve(weights: dict[str, Tensor], name: str, row: Row, x: Tensor) -> Tensor:
    _, _, _, _, _, stride, *padding = row
    x = F.conv2d(x, weights[f"{name}.conv.weight"], stride=stride, padding=padding)
    gain, bias, mean, var = (
        weights[f"{name}.bn.{key}"].view(-1, 1, 1)
        for key in ("weight", "bias", "running_mean", "running_var")
    )
    return ((x - mean) / (var + 0.001).sqrt() * gain + bias).clamp(min=0)


def windows(x: Tensor, outside: float) -> Tensor:
    """The nine neighbours of each pixel, (9, N, C, H, W), with a value for those outside."""
    height, width = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1), value=outside)
    return torch.stack(
        [padded[..., i : i + height, j : j + width] for i in range(3) for j in range(3)]
    )


def means(x: Tensor) -> Tensor:
    """Average pooling over the neighbours that exist."""
    return windows(x, 0).sum(0) / windows(torch.ones_like(x), 0).sum(0)


def maxima(x: Tensor) -> Tensor:
    """Maximum pooling."""
    return windows(x, float("-inf")).amax(0)
