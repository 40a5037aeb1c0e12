"""What sets tell of their images, and which models that satisfies."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from hvae.data import DataConfig, ImageSource, Loader, complete_condition, open_source
from hvae.data.arrays import open_arrays
from hvae.data.memory import ArraySource
from hvae.errors import UserError
from hvae.models.config import ConditionConfig

CLASS = ConditionConfig(kind="class")


def ramp(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)


@pytest.fixture
def save(tmp_path):
    """Writes a .npz of 12 images and opens a split."""

    def write(split: str = "train", **arrays: np.ndarray) -> ArraySource:
        np.savez(tmp_path / "set.npz", images=ramp(12, 4, 6), **arrays)
        return open_arrays(tmp_path / "set.npz", split)

    return write


# Class labels


def test_sub_folders_are_classes(write_images):
    root = write_images("train/cat/0.png", "train/Big dog/1.png", "test/cat/2.png")
    train = open_source(DataConfig(source=str(root)), "train")
    condition = complete_condition(CLASS, train)
    assert condition.classes == ("Big dog", "cat")
    assert [condition.classes[label] for label in train.labels] == ["Big dog", "cat"]
    test = open_source(DataConfig(source=str(root)), "test")
    assert complete_condition(condition, test) == condition


@pytest.mark.parametrize("source", ["fashion-mini", "shapes"])
def test_sets_with_classes_name_them(source):
    train, test = (open_source(DataConfig(source=source), split) for split in ("train", "test"))
    condition = complete_condition(CLASS, train)
    assert condition.classes == train.classes
    assert complete_condition(condition, test) == condition


def test_labels_of_a_file_may_have_names_in_it(save):
    labels, names = np.arange(12) % 3, np.array(["red", "green", "blue"])
    train, test = save(labels=labels, classes=names), save("test", labels=labels, classes=names)
    for source in (train, test):
        assert source.classes == ("red", "green", "blue")
    assert complete_condition(CLASS, train).classes == ("red", "green", "blue")


def test_labels_without_names_are_called_by_their_numbers(save):
    source = save(labels=np.arange(12) % 3)
    assert complete_condition(CLASS, source).classes == ("0", "1", "2")
    named = ConditionConfig(kind="class", classes=("red", "green", "blue", "black"))
    assert complete_condition(named, source) == named


def test_the_test_split_of_unnamed_labels_may_lack_some(tmp_path):
    np.savez(
        tmp_path / "set.npz",
        train_images=ramp(4, 4, 4),
        train_labels=np.array([0, 1, 2, 2]),
        test_images=ramp(2, 4, 4),
        test_labels=np.array([0, 1]),
    )
    train, test = (open_arrays(tmp_path / "set.npz", split) for split in ("train", "test"))
    condition = complete_condition(CLASS, train)
    assert complete_condition(condition, test).classes == ("0", "1", "2")


# Vectors and images


def test_vectors_keep_in_step_with_their_images(save):
    vectors = np.stack([np.arange(12), -np.arange(12)], 1).astype(np.float64)
    train, test = save(conditions=vectors), save("test", conditions=vectors)
    assert train.conditions.dtype == torch.float32
    assert len(train) + len(test) == 12
    for source in (train, test):
        for index, vector in enumerate(source.conditions):
            row = int(vector[0])
            np.testing.assert_array_equal(source[index][0], ramp(12, 4, 6)[row])
    condition = complete_condition(ConditionConfig(kind="vector"), train)
    assert condition.shape == (2,)


def test_fitting_images_keeps_conditions(save, tmp_path):
    save(conditions=ramp(12, 2, 3, 3), labels=np.arange(12))
    config = DataConfig(source=str(tmp_path / "set.npz"), size=(8, 8))
    source = open_source(config, "train")
    assert source.shape == (1, 8, 8)
    assert source.conditions.shape == (len(source), 3, 2, 3)  # channels last in the file
    expected = ramp(12, 2, 3, 3)[source.labels[1]].transpose(2, 0, 1)
    np.testing.assert_array_equal(source.conditions[1], expected)


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({"source": "data"}, (1, 2, 3)),
        ({"source": "mask"}, (2, 4, 6)),
        ({"source": "downsample", "factor": 2}, (1, 2, 3)),
    ],
)
def test_the_shape_of_an_image_condition_comes_from_the_data(save, changes, shape):
    source = save(conditions=ramp(12, 2, 3))
    condition = ConditionConfig(kind="image", **changes)
    assert complete_condition(condition, source).shape == shape


def test_batches_carry_what_is_known_of_their_images(save):
    source = save(labels=np.arange(12), conditions=ramp(12, 4, 6))
    loader = Loader(source, batch=5, seed=1, flip=True)
    mirrored = 0
    for batch in itertools.islice(loader.batches(0), 6):
        assert torch.equal(batch.conditions, batch.images)  # as in the file, and flipped alike
        rows = torch.from_numpy(ramp(12, 4, 6)[batch.labels])[:, None]
        mirrored += (batch.images != rows).flatten(1).any(1).sum().item()
    assert 5 < mirrored < 25
    resumed = next(loader.batches(15))
    fourth = next(itertools.islice(loader.batches(0), 3, None))
    assert torch.equal(resumed.conditions, fourth.conditions)


def test_vectors_are_not_mirrored(save):
    source = save(conditions=np.arange(24, dtype=np.float32).reshape(12, 2))
    batch = next(Loader(source, batch=8, seed=0, flip=True).batches(0))
    assert (batch.conditions[:, 0] < batch.conditions[:, 1]).all()


def test_sets_without_conditions_have_none(write_images):
    source = open_source(DataConfig(source=str(write_images("a.png", "b.png"))), "train")
    assert source.conditions is None
    assert next(Loader(source, batch=1, seed=0).batches(0)).conditions is None


# Refusals


def emoji() -> ImageSource:
    return open_source(DataConfig(source="emoji-32"), "train")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            {"kind": "class"},
            "model.condition.kind is class, but emoji-32 (train) has no labels; classes are the "
            "sub-folders of a folder, or labels of a .npz file",
        ),
        (
            {"kind": "vector"},
            "model.condition.kind is vector, but emoji-32 (train) has no conditions; they are an "
            "array of a .npz file",
        ),
        (
            {"kind": "image", "source": "downsample", "factor": 5},
            "model.condition.factor: 5 does not divide 32 x 32",
        ),
        (
            {"kind": "image", "source": "mask", "shape": (3, 32, 32)},
            "model.condition.shape is (3, 32, 32), but that of emoji-32 (train) is (4, 32, 32)",
        ),
    ],
)
def test_sets_that_do_not_tell_are_refused(condition, message):
    with pytest.raises(UserError) as caught:
        complete_condition(ConditionConfig(**condition), emoji())
    assert str(caught.value) == message


def test_other_classes_are_refused(save):
    shapes = open_source(DataConfig(source="shapes"), "test")
    with pytest.raises(UserError) as caught:
        complete_condition(ConditionConfig(kind="class", classes=("cat", "dog")), shapes)
    assert str(caught.value) == (
        "model.condition.classes are cat, dog, but those of shapes (test) are disc, square, ring"
    )
    unnamed = save(labels=np.arange(12))
    with pytest.raises(UserError, match="classes are cat, dog, but those of set"):
        complete_condition(ConditionConfig(kind="class", classes=("cat", "dog")), unnamed)


def test_vectors_are_no_images(save):
    source = save(conditions=np.zeros((12, 2)))
    with pytest.raises(UserError, match=r"kind is image, but the conditions of set have shape"):
        complete_condition(ConditionConfig(kind="image"), source)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"conditions": np.zeros((12, 2), int)}, "wanted floats"),
        ({"conditions": np.zeros((11, 2))}, "wanted one for each of 12 images"),
        ({"conditions": np.zeros((12, 4, 4))}, "wanted floats"),
        (
            {"labels": np.arange(12), "classes": np.array(["a", "b"])},
            "wanted a string for each label from 0 to 11",
        ),
        (
            {"labels": np.zeros(12, int), "classes": np.array([1])},
            "wanted a string for each label from 0 to 0",
        ),
    ],
)
def test_damaged_conditions_are_named(save, tmp_path: Path, arrays, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        save(**arrays)
    assert str(tmp_path / "set.npz") in str(caught.value)


def test_a_source_goes_with_an_image():
    with pytest.raises(ValueError, match="source: mask goes with kind: image, got kind: class"):
        ConditionConfig(kind="class", source="mask")
