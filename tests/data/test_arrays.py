import numpy as np
import pytest

from hvae.data.arrays import open_arrays
from hvae.data.split import hashed_rows
from hvae.errors import UserError

# Stored shape, and the same images as (N, C, H, W).
LAYOUTS = {
    "NHW": ((40, 6, 5), lambda images: images[:, None]),
    "NHWC": ((40, 6, 5, 3), lambda images: images.transpose(0, 3, 1, 2)),
    "NCHW": ((40, 3, 6, 5), lambda images: images),
    "N1HW": ((40, 1, 6, 5), lambda images: images),
}


def ramp(shape: tuple[int, ...]) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_layouts_become_channels_first(tmp_path, layout, suffix):
    shape, channels_first = LAYOUTS[layout]
    images = ramp(shape)
    path = tmp_path / f"set{suffix}"
    np.save(path, images) if suffix == ".npy" else np.savez(path, images)
    source = open_arrays(path, "train")
    wanted = channels_first(images)
    assert source.shape == wanted.shape[1:]
    found = source.take(np.arange(len(source))).numpy()
    np.testing.assert_array_equal(found, wanted[hashed_rows([*map(str, range(40))], "train", "")])
    assert source.name == "set"


def test_npy_stays_on_disk(tmp_path):
    np.save(tmp_path / "set.npy", ramp((40, 6, 5, 3)))
    source = open_arrays(tmp_path / "set.npy", "train")
    assert isinstance(source._images, np.memmap)


def test_hash_split_is_a_partition_with_labels_in_step(tmp_path):
    images = ramp((200, 2, 2))
    np.savez(tmp_path / "set.npz", x=images, labels=np.arange(200))
    train, test = (open_arrays(tmp_path / "set.npz", split) for split in ("train", "test"))
    assert sorted(train.labels.tolist() + test.labels.tolist()) == list(range(200))
    assert 3 <= len(test) <= 20
    for source in (train, test):
        np.testing.assert_array_equal(source[0][0].numpy(), images[source.labels[0]])


@pytest.mark.parametrize("train_key", ["train_images", "images"])
def test_given_test_images_are_used_whole(tmp_path, train_key):
    train_labels = "train_labels" if train_key == "train_images" else "labels"
    arrays = {
        train_key: ramp((30, 4, 4)),
        train_labels: np.zeros(30, np.int32),
        "test_images": 255 - ramp((10, 4, 4)),
        "test_labels": np.ones(10, np.uint8),
    }
    np.savez(tmp_path / "set.npz", **arrays)
    train, test = (open_arrays(tmp_path / "set.npz", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (30, 10)
    assert test.labels.tolist() == [1] * 10
    np.testing.assert_array_equal(test[3][0].numpy(), arrays["test_images"][3])


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        (
            {"images": np.zeros((4, 2, 2), np.float32)},
            r"holds float32 \(4, 2, 2\); images are uint8",
        ),
        ({"images": np.zeros((4, 2, 2, 4), np.uint8)}, r"C 1 or 3"),
        ({"images": np.zeros((4, 3, 5, 3), np.uint8)}, "only one way to read it"),
        ({"images": np.zeros((4, 2), np.uint8)}, r"wanted \(N, H, W\)"),
        ({"images": np.zeros((0, 2, 2), np.uint8)}, "no image"),
        ({"pixels": np.zeros((4, 2, 2), np.uint8)}, "wanted one of the arrays.*found pixels"),
        (
            {"images": np.zeros((4, 2, 2), np.uint8), "labels": np.zeros(3, int)},
            r"wanted one integer for each of 4 images",
        ),
        (
            {"images": np.zeros((4, 2, 2), np.uint8), "labels": np.zeros(4)},
            "holds labels float64",
        ),
    ],
)
def test_wrong_arrays_are_explained(tmp_path, arrays, complaint):
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=complaint) as caught:
        open_arrays(path, "train")
    assert str(path) in str(caught.value)


def test_pickles_are_never_loaded(tmp_path):
    np.save(tmp_path / "set.npy", np.array([object()]), allow_pickle=True)
    np.savez(tmp_path / "set.npz", images=np.array([object()]))
    for name in ("set.npy", "set.npz"):
        with pytest.raises(UserError, match=r"cannot read .* as NumPy arrays"):
            open_arrays(tmp_path / name, "train")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut short", b"\x93NUMPY\x01\x00"])
def test_damaged_files_are_named(tmp_path, content):
    path = tmp_path / "set.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"set\.npz"):
        open_arrays(path, "train")


def test_truncated_npy_is_named(tmp_path):
    path = tmp_path / "set.npy"
    np.save(path, ramp((40, 6, 5)))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"set\.npy"):
        open_arrays(path, "train")
