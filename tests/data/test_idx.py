import gzip
import re
import struct

import numpy as np
import pytest

from hvae.data import idx
from hvae.data.idx import open_fashion_mnist, open_idx, read_idx
from hvae.errors import UserError


def idx_bytes(array: np.ndarray, kind: int = 8) -> bytes:
    header = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    return header + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    """Six training and two test images of 3 x 5, one file of them uncompressed."""
    for prefix, count in (("train", 6), ("t10k", 2)):
        images = np.arange(count * 15, dtype=np.uint8).reshape(count, 3, 5)
        labels = np.arange(count, dtype=np.uint8)
        path = tmp_path / f"{prefix}-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(idx_bytes(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return tmp_path


def test_reads_both_splits(folder):
    train, test = open_idx(folder, "train"), open_idx(folder, "test")
    assert (len(train), len(test)) == (6, 2)
    assert train.shape == (1, 3, 5)
    assert train[5][0, 2, 4].item() == 89
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert train.name == folder.name


def test_other_sets_are_not_called_fashion_mnist(folder):
    with pytest.raises(UserError, match=r"6 train images of 3 x 5.*60000 of 28 x 28.*idx:DIR"):
        open_fashion_mnist(folder, "train")


def test_missing_files_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "DEBIAN_FOLDER", tmp_path / "nowhere")
    with pytest.raises(
        UserError, match=r"apt-get install dataset-fashion-mnist.*fashion-mnist:DIR"
    ):
        open_fashion_mnist(None, "train")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no idx file of 1-dimensional bytes"),
        (b"\0\0\x08\x01\0\0", "no idx file"),
        (idx_bytes(np.zeros((2, 2), np.uint8)), "no idx file of 1-dimensional bytes"),
        (idx_bytes(np.zeros(3, np.uint8), kind=0x0D), "no idx file"),
        (idx_bytes(np.zeros(3, np.uint8))[:-1], "promises 3 bytes and holds 2"),
        (idx_bytes(np.zeros(3, np.uint8)) + b"x", "promises 3 bytes and holds 4"),
        (b"\0\0\x08\x01\xff\xff\xff\xff", "promises -1 bytes"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, complaint):
    path = tmp_path / "labels-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as caught:
        read_idx(path, rank=1)
    assert str(path) in str(caught.value)


def test_truncated_gzip_is_named(tmp_path):
    path = tmp_path / "labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(1000, np.uint8)))[:-9])
    with pytest.raises(UserError, match=re.escape(f"cannot read {path}")):
        read_idx(path, rank=1)


def test_counts_of_images_and_labels_must_agree(folder):
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    with pytest.raises(UserError, match="2 test images but 3 labels"):
        open_idx(folder, "test")


@pytest.mark.skipif(not idx.DEBIAN_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_debian_package_has_ten_balanced_classes():
    source = open_fashion_mnist(None, "test")
    assert (len(source), source.shape) == (10_000, (1, 28, 28))
    assert np.bincount(source.labels.numpy()).tolist() == [1000] * 10
