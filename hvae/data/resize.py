"""The one way images change size and channel count: in float, antialiased, rounded once."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# An image as it was decoded, (1 | 3, H, W), values 0..255.
Planes = NDArray[np.uint8] | NDArray[np.float32]

# ITU-R BT.601 luma, the weights of Pillow's mode "L".
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def fit(planes: Planes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The image at a wanted shape: channels, then centre crop and Lanczos resize, then rounding.

    The crop is the largest centred box of the target's aspect, with fractional edges. All runs in
    float32, so that the filter's overshoot is clipped once, at the end; halves round up.

    Args:
        planes: (1 | 3, H, W), values 0..255.
        shape: wanted (1 | 3, H, W).

    Returns:
        uint8 of the wanted shape. A uint8 image that has it already comes back unchanged.
    """
    if planes.dtype == np.uint8 and planes.shape == shape:
        return np.asarray(planes, dtype=np.uint8)
    channels, height, width = shape
    exact = planes.astype(np.float32)
    if len(exact) > channels:
        exact = np.asarray(np.einsum("c,chw->hw", LUMA, exact))[None]
    if exact.shape[1:] != (height, width):
        exact = np.stack([_resize(plane, height, width) for plane in exact])
    # Grey becomes RGB last, so that it is filtered once.
    return np.repeat(rounded(exact), channels // len(exact), axis=0)


def rounded(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The nearest values of 0..255, halves up."""
    return np.floor(values.clip(0, 255) + 0.5).astype(np.uint8)


def centre_box(have: tuple[int, int], want: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest centred box with the aspect of `want`, as (left, top, right, bottom).

    Args:
        have: (height, width) of the image in pixels.
        want: (height, width) of the target.
    """
    height, width = have
    scale = min(height / want[0], width / want[1])
    # A product such as (h / w) * w can exceed h by one rounding, which Pillow refuses.
    crop_height, crop_width = min(height, want[0] * scale), min(width, want[1] * scale)
    top, left = (height - crop_height) / 2, (width - crop_width) / 2
    return left, top, left + crop_width, top + crop_height


def _resize(plane: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    image = Image.fromarray(plane)
    box = centre_box((image.height, image.width), (height, width))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box=box))
