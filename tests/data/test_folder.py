import numpy as np
import pytest
from PIL import Image

from hvae.data import DataConfig
from hvae.data.folder import open_folder
from hvae.errors import UserError


def open_split(root, split="train", **options):
    return open_folder(root, split, DataConfig(source=str(root), **options))


def test_images_labels_and_names(write_images):
    root = write_images("train/a/0.png", "train/b/1.png", "test/a/2.png", size=(4, 6))
    train, test = open_split(root), open_split(root, "test")
    assert (train.name, train.split, len(train), train.shape) == ("set", "train", 2, (3, 4, 6))
    assert [train[i].unique().tolist() for i in (0, 1)] == [[0], [1]]
    assert train.labels.tolist() == [0, 1]
    assert test.labels.tolist() == [0]
    assert train.classes == test.classes == ("a", "b")


def test_images_are_fitted_to_the_wanted_shape(write_images):
    root = write_images("train/0.png", "test/1.png", size=(4, 6))
    source = open_split(root, "test", size=(8, 5), channels=1)
    assert source.shape == tuple(source[0].shape) == (1, 8, 5)
    assert source[0].unique().tolist() == [1]


def test_grey_folders_stay_grey(tmp_path):
    for name in "abcdef":
        Image.new("L", (3, 3), 7).save(tmp_path / f"{name}.png")
    assert open_split(tmp_path).shape == (1, 3, 3)
    assert open_split(tmp_path, channels=3)[0].tolist() == [[[7] * 3] * 3] * 3


def test_mixed_sizes_are_listed_with_the_key_to_set(write_images):
    root = write_images("train/0.png", "train/1.png", size=(4, 6))
    write_images("test/0.png", size=(9, 9))
    with pytest.raises(UserError, match=r"\(4, 6\) x 2, \(9, 9\) x 1; set data\.size"):
        open_split(root)
    assert open_split(root, size=8).shape == (3, 8, 8)


def test_mixed_channels_are_listed_with_the_key_to_set(write_images):
    root = write_images("train/0.png", "test/1.png", size=(4, 4))
    Image.new("L", (4, 4)).save(root / "train" / "grey.png")
    with pytest.raises(UserError, match=r"3 x 2, 1 x 1; set data\.channels"):
        open_split(root)
    assert open_split(root, channels=3).shape == (3, 4, 4)


def test_rotated_images_count_as_they_will_be_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in "ab":
        Image.new("RGB", (4, 6)).save(tmp_path / f"{name}.jpg")
        Image.new("RGB", (6, 4)).save(tmp_path / f"{name}-turned.jpg", exif=exif)
    assert open_split(tmp_path).shape == (3, 6, 4)


@pytest.fixture
def with_bad(write_images):
    """Twenty good files; of the bad ones two fail at the header and one at its pixels."""
    root = write_images("test/a.png", *(f"train/good{i:02}.png" for i in range(20)), size=(8, 8))
    (root / "train" / "bad-empty.png").write_bytes(b"")
    (root / "train" / "good05-text.png").write_text("no image")
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    path = root / "train" / "zz-truncated.png"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:100])
    return root


def test_bad_files_are_skipped_on_request_and_named(with_bad):
    with pytest.warns(UserWarning, match="skipping 3 of 23 files") as caught:
        source = open_split(with_bad, skip_bad=True)
    message = str(caught[0].message)
    assert all(name in message for name in ("bad-empty", "good05-text", "zz-truncated"))
    assert len(source) == 20
    # The test image was written first: training images are 1 to 20.
    assert [source[i].unique().item() for i in range(20)] == list(range(1, 21))


def test_labels_stay_in_step_when_files_are_skipped(write_images):
    root = write_images("train/a/0.png", "train/a/1.png", "train/b/2.png", "test/a/3.png")
    (root / "train/a/0.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="skipping 1 of 3"):
        source = open_split(root, skip_bad=True)
    assert source.labels.tolist() == [0, 1]
    assert source[1].unique().tolist() == [2]


def test_a_bad_file_raises_at_access_otherwise(with_bad):
    source = open_split(with_bad, size=8, channels=3)
    assert len(source) == 23
    with pytest.raises(UserError, match=r"bad-empty\.png"):
        source[0]
    assert source[1].unique().tolist() == [1]


def test_a_bad_header_raises_at_opening_if_the_size_is_to_be_found(with_bad):
    with pytest.raises(UserError, match=r"bad-empty\.png"):
        open_split(with_bad)


@pytest.mark.parametrize("size", [None, 8])
def test_nothing_but_bad_files_is_an_error(tmp_path, size):
    for name in "abcdef":
        (tmp_path / f"{name}.png").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 5 image files"):
        open_split(tmp_path, size=size, channels=3, skip_bad=True)


def test_long_lists_of_bad_files_are_cut(tmp_path, write_images):
    root = write_images("test/a.png", "train/a.png")
    for i in range(30):
        (root / "train" / f"bad{i}.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"and 10 more$"):
        open_split(root, skip_bad=True)


def test_identity_follows_names_contents_and_shape(write_images):
    root = write_images("train/0.png", "train/1.png", "test/2.png")
    before = open_split(root).identity()
    assert before.count == 2
    assert before == open_split(root).identity()
    assert before != open_split(root, size=2).identity()
    (root / "train" / "1.png").rename(root / "train" / "2.png")
    renamed = open_split(root).identity()
    assert renamed != before
    (root / "train" / "2.png").write_bytes((root / "train" / "0.png").read_bytes())
    assert open_split(root).identity() not in (before, renamed)
