import itertools

import numpy as np
import pytest
import torch

from hvae.data import DataConfig, Loader, open_source
from hvae.data.generated import ShapesSource
from hvae.data.memory import ArraySource
from hvae.errors import UserError


def numbered(count: int) -> ArraySource:
    """Image i is i everywhere, except for a left column of 255; its label is i."""
    images = np.tile(np.arange(count, dtype=np.uint8)[:, None, None, None], (1, 1, 2, 3))
    images[..., 0] = 255
    return ArraySource("numbered", "train", images, labels=np.arange(count))


def first(loader: Loader, count: int, position: int = 0) -> list:
    return list(itertools.islice(loader.batches(position), count))


def same(one, other) -> bool:
    labels = (one.labels is None) == (other.labels is None)
    if one.labels is not None:
        labels = labels and torch.equal(one.labels, other.labels)
    return torch.equal(one.images, other.images) and one.position == other.position and labels


def test_every_epoch_shows_every_image_once_and_batches_straddle_epochs():
    batches = first(Loader(numbered(10), batch=4, seed=1), 10)
    labels = torch.cat([batch.labels for batch in batches])
    assert [batch.position for batch in batches] == list(range(0, 40, 4))
    epochs = labels.reshape(4, 10)
    assert (epochs.sort().values == torch.arange(10)).all()
    assert not torch.equal(epochs[0], epochs[1])


def test_labels_and_images_stay_together():
    for batch in first(Loader(numbered(10), batch=4, seed=1), 5):
        assert batch.images.shape == (4, 1, 2, 3)
        assert batch.images.dtype == torch.uint8
        assert torch.equal(batch.images[:, 0, 0, 1], batch.labels.to(torch.uint8))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_position_gives_the_same_batch_whatever_came_before(workers, in_memory):
    source = numbered(10) if in_memory else ShapesSource("train", (3, 6, 6), count=10)
    run = first(Loader(source, batch=4, seed=1, flip=True), 8)
    resumed = Loader(source, batch=4, seed=1, flip=True, workers=workers)
    for start in (0, 3, 7):
        for batch, wanted in zip(first(resumed, 8 - start, 4 * start), run[start:], strict=True):
            assert same(batch, wanted)


def test_positions_need_not_be_multiples_of_the_batch():
    loader = Loader(numbered(10), batch=4, seed=1, flip=True)
    [one], [left, right] = first(loader, 1, position=2), first(loader, 2)
    assert torch.equal(one.images, torch.cat([left.images[2:], right.images[:2]]))


def test_a_batch_may_exceed_the_set():
    [batch] = first(Loader(numbered(3), batch=7, seed=1), 1)
    assert torch.bincount(batch.labels).tolist() in ([2, 2, 3], [2, 3, 2], [3, 2, 2])


def test_seeds_change_order_and_mirroring():
    one, other = (first(Loader(numbered(50), batch=50, seed=s), 1)[0] for s in (1, 2))
    assert not torch.equal(one.labels, other.labels)


def test_half_of_the_images_are_mirrored_anew_in_every_epoch():
    batches = first(Loader(numbered(100), batch=100, seed=1, flip=True), 20)
    mirrored = torch.stack([batch.images[:, 0, 0, 2] == 255 for batch in batches])
    assert mirrored.double().mean().item() == pytest.approx(0.5, abs=0.05)
    per_image = torch.zeros(100, dtype=torch.int64)
    for batch, flips in zip(batches, mirrored, strict=True):
        assert torch.equal(batch.images[:, 0, 0, 0] == 255, ~flips)
        per_image[batch.labels] += flips
    assert per_image.min() >= 2
    assert per_image.max() <= 18


def test_without_flip_nothing_is_mirrored():
    [batch] = first(Loader(numbered(100), batch=100, seed=1), 1)
    assert (batch.images[..., 0] == 255).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_state_is_left_alone(workers):
    state = torch.get_rng_state()
    first(Loader(ShapesSource("train", (1, 4, 4)), batch=2, seed=1, flip=True, workers=workers), 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_labels_there_are_none():
    source = ArraySource("x", "train", np.zeros((5, 1, 2, 2), dtype=np.uint8))
    assert first(Loader(source, batch=2, seed=0), 1)[0].labels is None


@pytest.mark.parametrize("workers", [0, 2])
def test_folders_load_in_order_and_errors_name_the_file(write_images, workers):
    root = write_images("test/a.png", *(f"train/{i}.png" for i in range(6)))
    config = DataConfig(source=str(root), size=4, channels=1)
    loader = Loader(open_source(config, "train"), batch=3, seed=5, workers=workers)
    assert sorted(torch.cat([b.images[:, 0, 0, 0] for b in first(loader, 2)]).tolist()) == [
        *range(1, 7)
    ]
    (root / "train" / "3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"^cannot read the image .*/train/3\.png: [^\n]*$"):
        first(loader, 2)


def test_empty_sources_are_refused():
    with pytest.raises(UserError, match=r"numbered \(train\) has no images"):
        Loader(numbered(0), batch=2, seed=0)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"workers": -1}])
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match="wanted batch >= 1 and workers >= 0"):
        Loader(numbered(3), **({"batch": 2, "seed": 0} | wrong))


def test_negative_positions_are_refused_at_once():
    with pytest.raises(ValueError, match="position >= 0, got -1"):
        Loader(numbered(3), batch=2, seed=0).batches(-1)
