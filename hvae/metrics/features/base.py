"""What a feature extractor is, and features that do not depend on the batch an image sits in."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hvae.errors import UserError
from hvae.metrics.protocol import resize

CHUNK = 32

Triple = tuple[float, float, float]


class Extractor(Protocol):
    """A network that turns images into the vectors that Frechet and kernel distances compare."""

    @property
    def name(self) -> str:
        """As given to `open_extractor`: "inception", "lite0", "dinov2" or "my.module:Class"."""
        ...

    @property
    def dim(self) -> int:
        """Numbers per image."""
        ...

    @property
    def sha256(self) -> str:
        """What identifies the weights, hexadecimal; equal features take equal hashes."""
        ...

    @property
    def protocol(self) -> str:
        """How images are resized, see `hvae.metrics.protocol`; "own" for a class that does it."""
        ...

    @property
    def frechet_name(self) -> str:
        """What a Frechet distance of these features is called, for instance "FID"."""
        ...

    @property
    def kernel_name(self) -> str:
        """What a kernel distance of these features is called, for instance "KID"."""
        ...

    @property
    def chunk(self) -> int:
        """Images per pass in `in_chunks`."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the network runs and its features lie."""
        ...

    def prepare(self, images: Tensor) -> Tensor:
        """Returns what the network takes, (N, 3, R, R), of uint8 (N, C, H, W) on any device.

        C is 1 or 3, H and W are any.
        """
        ...

    def embed(self, prepared: Tensor) -> Tensor:
        """Returns features, float32 (N, dim), of what `prepare` made. Not differentiable."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Returns features, float32 (N, dim), of uint8 (N, C, H, W) images: both in one."""
        ...


@dataclass(frozen=True)
class NetworkExtractor:
    """An extractor made of a resizing protocol, a scaling of its 0..255 to the input, a network."""

    name: str
    dim: int
    sha256: str
    protocol: str
    frechet_name: str
    kernel_name: str

    network: nn.Module
    """Maps float32 (N, 3, R, R) to (N, dim)."""

    resolution: int
    """R, pixels per side."""

    mean: Triple
    std: Triple
    """The input is (x - mean) / std by channel, x in 0..255."""

    device: torch.device
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        self.network.to(self.device).eval().requires_grad_(False)
        # Inception on a CPU is 1.4 times faster so (one thread).
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def prepare(self, images: Tensor) -> Tensor:
        """Returns images resized, float32 (N, 3, R, R) in 0..255; see `Extractor`."""
        return resize(images.to(self.device), self.resolution, self.protocol)

    @torch.no_grad()
    def embed(self, prepared: Tensor) -> Tensor:
        """Returns features, float32 (N, dim); see `Extractor`."""
        mean, std = (prepared.new_tensor(value).view(3, 1, 1) for value in (self.mean, self.std))
        x = ((prepared - mean) / std).contiguous(memory_format=torch.channels_last)
        with exact_float32(self.device):
            features: Tensor = self.network(x)
        return features

    def __call__(self, images: Tensor) -> Tensor:
        """Returns features, float32 (N, dim); see `Extractor`."""
        return self.embed(self.prepare(images))


def in_chunks(
    extractor: Extractor, images: Tensor | Sequence[Tensor], first_index: int = 0
) -> Tensor:
    """Returns features, float32 (N, dim), in passes of `extractor.chunk` rows each.

    Convolutions round differently between batch sizes. Here image i of a set always takes row
    i % chunk of a pass of full size, missing rows filled with black, so that its features are the
    same bit for bit however the set is cut into calls (on one machine and thread count). Calls
    that start and end at multiples of the chunk waste nothing.

    Args:
        extractor: the network.
        images: uint8 (N, C, H, W), or N of (C, H, W) whose sizes may differ; C = 1 or 3.
        first_index: index of the first image in its set.

    Raises:
        ValueError: the images are not as above, or the index is negative.
        UserError: sizes differ, and the extractor does not resize.
    """
    if first_index < 0:
        raise ValueError(f"first_index must be at least 0, got {first_index}")
    chunk = extractor.chunk
    offset = first_index % chunk
    parts = [torch.empty(0, extractor.dim, device=extractor.device)]
    for start in range(-offset, len(images), chunk):
        rows = _prepared(extractor, images[max(start, 0) : start + chunk])
        skipped = max(-start, 0)
        if len(rows) == chunk:
            padded = rows
        else:
            padded = rows.new_zeros(chunk, *rows.shape[1:])
            padded[skipped : skipped + len(rows)] = rows
        parts.append(extractor.embed(padded)[skipped : skipped + len(rows)])
    return torch.cat(parts)


def _prepared(extractor: Extractor, images: Tensor | Sequence[Tensor]) -> Tensor:
    """Images of one size together, others one by one: resizing treats each by itself."""
    if isinstance(images, Tensor):
        return extractor.prepare(images)
    if len({image.shape for image in images}) == 1:
        return extractor.prepare(torch.stack([*images]))
    rows = [extractor.prepare(image[None]) for image in images]
    if len(sizes := {row.shape[2:] for row in rows}) > 1:
        raise UserError(
            f"{extractor.name} does not resize, and images differ in size: "
            f"{', '.join(f'{height}x{width}' for height, width in sorted(sizes)[:5])}; fit them to "
            "one first"
        )
    return torch.cat(rows)


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Computes float32 as float32 until the context ends, and each time by the same algorithm.

    Without it TF32, bfloat16 in oneDNN, autocast of a caller, or an algorithm that cuDNN picks by
    the clock would move the features.
    """
    backends: Any = torch.backends  # torch's stubs lack mkldnn's
    precisions = [
        backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv,
    ]  # fmt: skip
    settings = [
        *[(backend, "fp32_precision", "ieee") for backend in precisions],
        (backends.cudnn, "benchmark", False),
        (backends.cudnn, "deterministic", True),
    ]
    before = [getattr(owner, name) for owner, name, _ in settings]
    try:
        for owner, name, value in settings:
            setattr(owner, name, value)
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for (owner, name, _), value in zip(settings, before, strict=True):
            setattr(owner, name, value)
