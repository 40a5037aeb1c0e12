"""What is asked of features before anything is computed of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hvae.errors import UserError


def to_float64(x: Tensor) -> Tensor:
    """Returns `x` in float64 on its device, or on the CPU if that is MPS, which has no float64."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def check_finite(features: Tensor, names: Sequence[str] | None = None, *, first: int = 0) -> None:
    """Raises UserError if a row holds a value that is not finite: how many do, and the first.

    Args:
        features: (N, d).
        names: of the N images, to name the first bad one by. None: its index is told.
        first: index of row 0, where these are not the first rows of a stream.
    """
    bad = (~features.isfinite()).any(1).nonzero().flatten()
    if len(bad) == 0:
        return
    index = int(bad[0])
    name = f"image {first + index}" if names is None else names[index]
    raise UserError(
        f"features of {len(bad)} of {len(features)} images are not finite, first those of {name}; "
        "look at that image, and at the weights of the extractor"
    )


def check_count(count: int, what: str) -> None:
    """Raises UserError unless there are two of something, such as "fake images"."""
    if count < 2:
        raise UserError(f"wanted at least 2 {what}, got {count}; use more of them")


def feature_matrix(features: Tensor, what: str) -> Tensor:
    """Returns features in float64, after all that can be wrong with them is checked.

    Args:
        features: (N, d), any floating dtype, any device.
        what: they are of, such as "fake images", for messages.

    Raises:
        ValueError: they are no matrix of floating numbers.
        UserError: there are less than two rows, or one is not finite.
    """
    check_matrix(features)
    check_count(len(features), what)
    check_finite(features)
    return to_float64(features)


def feature_pair(fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Returns two sets of features (N, d), (M, d) in float64 on the device of the fakes.

    Raises:
        ValueError, UserError: as `feature_matrix`; ValueError also if their widths differ.
    """
    fake, real = feature_matrix(fake, "fake images"), feature_matrix(real, "real images")
    if fake.shape[1] != real.shape[1]:
        raise ValueError(
            f"wanted features of one width, got fake {tuple(fake.shape)}, real {tuple(real.shape)}"
        )
    return fake, real.to(fake.device)


def check_matrix(features: Tensor, dim: int | None = None) -> None:
    """Raises ValueError unless features are floating numbers (N, d), with d = `dim` if given."""
    shape = tuple(features.shape)
    if features.ndim != 2 or not features.is_floating_point() or dim not in (None, shape[1]):
        wanted = "(N, d)" if dim is None else f"(N, {dim})"
        raise ValueError(f"wanted floating features {wanted}, got {features.dtype} {shape}")


def check_images(images: Tensor) -> None:
    """Raises ValueError unless images are uint8 (N, C, H, W)."""
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            f"wanted uint8 images (N, C, H, W), got {images.dtype} {tuple(images.shape)}"
        )
