import hashlib

import numpy as np
import pytest
import torch

from hvae.data.generated import CLASSES, ShapesSource


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 5, 40), (3, 1, 1)])
def test_any_shape(shape):
    source = ShapesSource("test", shape)
    assert len(source) == 300
    assert tuple(source[299].shape) == shape
    assert source[0].dtype == torch.uint8


def test_classes_are_balanced_and_drawn_as_named():
    source = ShapesSource("train", (1, 64, 64), count=30)
    assert torch.bincount(source.labels).tolist() == [10] * len(CLASSES)


def test_splits_differ_and_images_do_not_change():
    train, test = (ShapesSource(split, (3, 16, 16)) for split in ("train", "test"))
    assert torch.equal(train[5], ShapesSource("train", (3, 16, 16))[5])
    assert not torch.equal(train[5], test[5])


def test_pixels_are_pinned():
    """Loss values elsewhere rest on these pixels."""
    source = ShapesSource("train", (3, 16, 16))
    images = np.stack([source[i].numpy() for i in range(30)])
    assert hashlib.sha256(images).hexdigest().startswith("5a66b22038028c49")


def test_an_index_beyond_the_end_is_refused():
    with pytest.raises(IndexError):
        ShapesSource("train", (1, 8, 8), count=3)[3]
