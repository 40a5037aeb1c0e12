"""Extractors that take no weights: a good one, and those that fail in their own ways."""

import sys

import torch.nn.functional as F


class Pooled:
    dim = 12
    sha256 = "pooled-1"

    def __call__(self, images):
        return F.adaptive_avg_pool2d(images.float(), 2).flatten(1) / 255


class Talking(Pooled):
    def __init__(self):
        print("made")

    def __call__(self, images):
        print("called")
        return super().__call__(images)


class Unmade(Pooled):
    def __init__(self):
        raise RuntimeError("no luck\ntoday")


class Leaving(Pooled):
    def __init__(self):
        sys.exit(0)


class Failing(Pooled):
    def __call__(self, images):
        raise KeyError("layer\n7 \x1b[31m")


class LeavingLater(Pooled):
    def __call__(self, images):
        sys.exit(0)


class NotCallable:
    dim = 12
    sha256 = "x"


class NoWidth(Pooled):
    dim = None


class NoColumns(Pooled):
    dim = 0


class WordForWidth(Pooled):
    dim = "12"


class TruthForWidth(Pooled):
    dim = True


class RaisingWidth(Pooled):
    @property
    def dim(self):
        raise RuntimeError("unknown")


class NumberForHash(Pooled):
    sha256 = 7


class NumberForProtocols(Pooled):
    protocols = 7


class WordForProtocols(Pooled):
    protocols = "clean"


class DeafToProtocol(Pooled):
    protocols = ("clean", "mine")


class Narrow(Pooled):
    dim = 13


class Double(Pooled):
    def __call__(self, images):
        return super().__call__(images).double()


class Half(Pooled):
    def __call__(self, images):
        return super().__call__(images).half()


class Array(Pooled):
    def __call__(self, images):
        return super().__call__(images).numpy()


class Nothing(Pooled):
    def __call__(self, images):
        return None


class Pair(Pooled):
    def __call__(self, images):
        return super().__call__(images), 1


class OneRow(Pooled):
    def __call__(self, images):
        return super().__call__(images)[:1]


class Maps(Pooled):
    def __call__(self, images):
        return images.float()


class NotFinite(Pooled):
    def __call__(self, images):
        return super().__call__(images) * float("nan")


class Endless(Pooled):
    def __call__(self, images):
        return super().__call__(images) / 0
