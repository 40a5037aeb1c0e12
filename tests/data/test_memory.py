import hashlib

import numpy as np
import pytest
import torch

from hvae.data import DataConfig, Identity
from hvae.data.memory import ArraySource


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (10, 3, 4, 6), dtype=np.uint8)


def test_rows_choose_images_and_labels(images):
    source = ArraySource("x", "test", images, rows=np.array([7, 2]), labels=np.arange(10))
    assert (len(source), source.shape) == (2, (3, 4, 6))
    assert source.labels.tolist() == [7, 2]
    np.testing.assert_array_equal(source[1].numpy(), images[2])
    np.testing.assert_array_equal(source.take(np.array([1, 0, 1])).numpy(), images[[2, 7, 2]])


def test_what_is_handed_out_is_a_contiguous_copy(images):
    source = ArraySource("x", "train", images.transpose(0, 1, 3, 2))
    taken = source.take(np.array([0, 1]))
    assert taken.is_contiguous()
    taken.zero_()
    assert source[0].any()


def test_identity_is_the_hash_of_header_and_pixels(images):
    wanted = hashlib.sha256(b"uint8 3x4x6\n" + images.tobytes()).hexdigest()
    assert ArraySource("x", "train", images).identity() == Identity(10, wanted)
    strided = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert ArraySource("y", "test", strided).identity() == Identity(10, wanted)


def test_identity_tells_shapes_apart(images):
    turned = images.reshape(10, 3, 6, 4)
    one, other = ArraySource("x", "train", images), ArraySource("x", "train", turned)
    assert one.identity() != other.identity()


def test_fitting_keeps_rows_labels_and_classes(images):
    source = ArraySource(
        "x", "train", images, rows=np.arange(9, 3, -1), labels=np.arange(10), classes=("a", "b")
    )
    fitted = source.fitted(DataConfig(source="x", size=(8, 12), channels=1))
    assert fitted.shape == tuple(fitted[0].shape) == (1, 8, 12)
    assert fitted.classes == ("a", "b")
    assert torch.equal(fitted.labels, source.labels)
    # Every image is near the mean of the one it came from.
    wanted = source.take(np.arange(6)).float().mean(dim=(1, 2, 3))
    found = fitted.take(np.arange(6)).float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(found, wanted, atol=25, rtol=0)


def test_fitting_to_its_own_shape_is_the_source_itself(images):
    source = ArraySource("x", "train", images)
    assert source.fitted(DataConfig(source="x")) is source
    assert source.fitted(DataConfig(source="x", size=(4, 6), channels=3)) is source
