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


def cyclical_ramp(images: int, length: int, cycles: int, rise: float) -> float:
    """Returns a factor that rises from 0 to 1 again in each of `cycles` equal parts of `length`.

    It rises linearly over the share `rise` of a part and stays at 1 for the rest of it; after
    `length` images it is 1. Equation 6 of Fu et al., "Cyclical Annealing Schedule: A Simple
    Approach to Mitigating KL Vanishing" (arXiv 1903.10145), in images: a part ends with its last
    image.

    >>> [cyclical_ramp(images, 80, 2, 0.5) for images in (10, 20, 40, 50, 80, 90)]
    [0.5, 1.0, 1.0, 0.5, 1.0, 1.0]
    """
    if images <= 0 or images > length:
        return float(images > length)
    into = images * cycles - length * ((images * cycles - 1) // length)  # of a part of `length`
    return min(1.0, into / (rise * length))
