"""Schedules as functions of images seen, so that they do not depend on the batch size."""

import math


def linear_ramp(images: int, length: int) -> float:
    """Returns images / length, at most 1; 1 where the length is 0.

    >>> linear_ramp(25, 100), linear_ramp(200, 100), linear_ramp(0, 0)
    (0.25, 1.0, 1.0)
    """
    return min(1.0, images / length) if length else 1.0


def cosine_decay(images: int, length: int, final: float) -> float:
    """Returns a factor that falls from 1 to `final` along half a cosine over `length` images.

    >>> cosine_decay(0, 100, 0.1), round(cosine_decay(100, 100, 0.1), 6)
    (1.0, 0.1)
    """
    return final + (1 - final) * (1 + math.cos(math.pi * linear_ramp(images, length))) / 2
