import numpy as np
import pytest

from hvae.data import DataConfig, Identity, SupportsTake, open_source
from hvae.errors import UserError


def opened(word: str, split: str = "train", **options):
    return open_source(DataConfig(source=str(word), **options), split)


@pytest.fixture
def npy(tmp_path):
    np.save(tmp_path / "set.npy", np.zeros((40, 4, 4, 3), dtype=np.uint8))
    return tmp_path / "set.npy"


@pytest.mark.parametrize(
    ("word", "shape", "counts"),
    [
        ("fashion-mini", (1, 28, 28), (10_000, 2_000)),
        ("emoji-32", (3, 32, 32), (1637, 220)),
        ("shapes", (3, 32, 32), (3000, 300)),
    ],
)
def test_words_open_both_splits(word, shape, counts):
    for split, count in zip(("train", "test"), counts, strict=True):
        source = opened(word, split)
        assert (source.name, source.split, source.shape, len(source)) == (word, split, shape, count)


def test_size_and_channels_apply_to_every_kind(npy, write_images):
    folder = write_images(*(f"{i}.png" for i in range(10)))
    for word in ("emoji-32", "shapes", npy, folder):
        source = opened(word, "test", size=(6, 4), channels=1)
        assert source.shape == tuple(source[0].shape) == (1, 6, 4)


def test_every_kind_has_an_identity(npy, write_images):
    folder = write_images(*(f"{i}.png" for i in range(10)))
    for word in (npy, folder, "shapes"):
        identity = opened(word, "test", size=4).identity()
        assert isinstance(identity, Identity)
        assert identity.count == len(opened(word, "test", size=4))


def test_arrays_can_be_taken_from_directly_and_files_cannot(npy, write_images):
    assert isinstance(opened(npy), SupportsTake)
    assert not isinstance(opened(write_images("a.png", "b.png")), SupportsTake)


def test_a_kind_forces_the_reading(npy, write_images, monkeypatch):
    renamed = npy.rename(npy.with_suffix(".data"))
    assert len(opened(f"npy:{renamed}")) > 30
    monkeypatch.chdir(write_images("a.png", "b.png", "c.png", folder="emoji-32").parent)
    assert opened("emoji-32").shape == (3, 32, 32)
    assert opened("folder:emoji-32").shape == (3, 4, 6)


def test_home_is_expanded(npy, monkeypatch):
    monkeypatch.setenv("HOME", str(npy.parent))
    assert opened("~/set.npy").name == "set"
    assert opened("npy:~/set.npy").name == "set"


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("fashion-mni", r"named fashion-mni; did you mean fashion-mini\?"),
        ("emoji32", r"did you mean emoji-32\?"),
        ("foldr:/data/x", r"did you mean folder:/data/x\?"),
        ("./no/such/place", r"named ./no/such/place; wanted shapes, fashion-mini, emoji-32"),
        ("cats.npz", r"named cats\.npz; wanted"),
        ("hf:uoft-cs/cifar10", r"cannot be read yet; export the images to a folder"),
        ("folder:/no/such/place", r"/no/such/place: No such file or directory"),
        ("npz:/no/such.npz", r"cannot read /no/such\.npz"),
        ("fashion-mnist:/no/such", r"apt-get install dataset-fashion-mnist"),
    ],
)
def test_words_that_name_nothing_say_what_would(word, complaint):
    with pytest.raises(UserError, match=complaint):
        opened(word)


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"")
    with pytest.raises(UserError, match=r"set\.zip is neither a folder of images nor a \.npy"):
        opened(tmp_path / "set.zip")


def test_unknown_splits_are_refused():
    with pytest.raises(ValueError, match="split train or test, got 'valid'"):
        opened("shapes", "valid")
