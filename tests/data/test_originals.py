"""Sets as a whole or a part, a folder's images at their own sizes."""

import numpy as np
import pytest
import torch
from PIL import Image

from hvae.data import DataConfig, open_source
from hvae.data.originals import Chosen, OriginalFolder, open_part
from hvae.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Twenty-four images: two sizes, one of them grey, one transparent."""
    rng = np.random.default_rng(0)
    for index in range(24):
        size = (5, 6) if index % 3 else (7, 4)
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index:02}.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "20.png")
    Image.fromarray(np.dstack([pixels, np.zeros(size, np.uint8)])).save(tmp_path / "21.png")
    return tmp_path


def test_a_folder_is_read_whole_at_its_own_sizes(folder):
    part = open_part(DataConfig(source=str(folder)), None)
    assert isinstance(part, OriginalFolder)
    assert (len(part), part.split) == (24, "all")
    assert part[0].shape == (3, 7, 4)
    assert part[1].shape == (3, 5, 6)
    with Image.open(folder / "01.png") as image:
        wanted = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())
    assert torch.equal(part[1], wanted)
    assert part[20].shape[0] == 1
    assert (part[21] == 255).all()  # nothing but white shows through
    assert part[21].dtype == torch.uint8


def test_traits_are_those_of_the_headers(folder):
    traits = open_part(DataConfig(source=str(folder)), None).traits()
    assert traits["sizes"] == {"5x6": 17, "7x4": 7}
    assert traits["channels"] == {"3": 23, "1": 1}
    assert traits["formats"] == {".png": 24}
    assert traits["converted"] == {"transparent": 1}


def test_splits_are_those_of_training(folder):
    config = DataConfig(source=str(folder))
    fitted = DataConfig(source=str(folder), size=6, channels=3)
    parts = [open_part(config, part) for part in ("train", "test")]
    for part in parts:
        assert len(part) == len(open_source(fitted, part.split))
    assert sum(map(len, parts)) == 24


def test_a_size_fits_images_as_training_does(folder):
    config = DataConfig(source=str(folder), size=6, channels=3)
    part = open_part(config, "all")
    assert len(part) == 24
    assert all(part[index].shape == (3, 6, 6) for index in range(24))
    train = open_source(config, "train")
    assert torch.equal(part[0], train[0])
    assert torch.equal(part[23], open_source(config, "test")[len(part) - len(train) - 1])


def test_a_set_that_brings_test_images_is_read_by_them(folder, tmp_path_factory):
    assert open_part(DataConfig(source="fashion-mini"), None).split == "test"
    for side, names in (("train", ["00", "01"]), ("test", ["02"])):
        (folder / side).mkdir()
        for name in names:
            (folder / f"{name}.png").rename(folder / side / f"{name}.png")
    part = open_part(DataConfig(source=str(folder)), None)
    assert (part.split, len(part)) == ("test", 1)
    arrays = tmp_path_factory.mktemp("arrays")
    x = np.zeros((30, 4, 4), np.uint8)
    np.savez(arrays / "one.npz", images=x)
    np.savez(arrays / "two.npz", train_images=x, test_images=x[:7])
    assert len(open_part(DataConfig(source=str(arrays / "one.npz")), None)) == 30
    assert len(open_part(DataConfig(source=str(arrays / "two.npz")), None)) == 7


def test_identities_tell_parts_and_contents_apart(folder):
    def of(**settings):
        part = settings.pop("part", None)
        config = DataConfig(source=str(folder), **settings)
        return open_part(config, part).identity()

    found = [of(), of(part="train"), of(size=6, channels=3), of(size=6, channels=3, part="train")]
    assert len({identity.sha256 for identity in found}) == 4
    assert of() == found[0]
    assert found[0].count == found[2].count == 24
    Image.new("RGB", (5, 6)).save(folder / "05.png")
    assert of().sha256 != found[0].sha256


def test_a_choice_is_the_seeds_and_in_order(folder):
    part = open_part(DataConfig(source=str(folder)), None)
    everything = Chosen(part)
    assert list(everything.rows) == list(range(24))
    some = Chosen(part, 10, seed=1)
    assert list(some.rows) == sorted(set(some.rows))
    assert len(some) == 10
    assert list(Chosen(part, 10, seed=1).rows) == list(some.rows)
    assert list(Chosen(part, 10, seed=2).rows) != list(some.rows)
    for image, row in zip(some.take(3, 6), some.rows[3:6], strict=True):
        assert torch.equal(image, part[row])
    assert some.file(0) == str(folder / f"{some.rows[0]:02}.png")
    assert "test" in Chosen(open_part(DataConfig(source="emoji-32"), None)).file(3)


def test_more_than_there_are_is_refused(folder):
    with pytest.raises(UserError, match="24 images, not 25"):
        Chosen(open_part(DataConfig(source=str(folder)), None), 25)


def test_labels_are_at_hand_for_one_split_alone(folder):
    assert Chosen(open_part(DataConfig(source="fashion-mini"), "test")).labelled.labels is not None
    for source in (str(folder), "fashion-mini"):
        with pytest.raises(UserError, match="one split"):
            _ = Chosen(open_part(DataConfig(source=source), "all")).labelled


def test_bad_files_are_named_and_left_out_on_demand(folder):
    (folder / "03.png").write_bytes(b"\x89PNG")
    config = DataConfig(source=str(folder))
    part = open_part(config, None)
    with pytest.raises(UserError, match=r"03\.png"):
        part.traits()
    with pytest.warns(UserWarning, match=r"03\.png"):
        kept = open_part(config.model_copy(update={"skip_bad": True}), None)
    assert len(kept) == 23
    assert kept.traits()["formats"] == {".png": 23}
