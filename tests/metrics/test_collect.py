"""One pass over images: the same rows however it is cut."""

import doctest

import pytest
import torch

from hvae.metrics import collect as module
from hvae.metrics.collect import CHUNK, collect, part_of


class Noise:
    """Images of two sizes."""

    def __init__(self, count):
        draw = torch.Generator().manual_seed(0)
        self.images = [
            torch.randint(256, (3, 6 + i % 2, 7), dtype=torch.uint8, generator=draw)
            for i in range(count)
        ]
        self.asked = []

    def __len__(self):
        return len(self.images)

    def take(self, start, stop):
        self.asked.append((start, stop))
        return self.images[start:stop]


def means(first, images):
    """The place, the mean, and how many came together: what a convolution would depend on."""
    return torch.stack(
        [torch.tensor([first + i, x.float().mean(), len(images)]) for i, x in enumerate(images)]
    )


def test_rows_are_those_of_single_images():
    images = Noise(70)
    rows = collect({"means": means}, images)["means"]
    assert rows[:, 0].tolist() == list(range(70))
    wanted = torch.stack([x.float().mean() for x in images.images])
    torch.testing.assert_close(rows[:, 1], wanted)


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_the_batch_changes_what_is_read_at_once_alone(batch):
    images = Noise(100)
    rows = collect({"means": means}, images, batch=batch)["means"]
    assert rows[:, 2].tolist() == [CHUNK] * 96 + [4] * 4
    assert images.asked[0] == (0, min(-(-batch // CHUNK) * CHUNK, 100))


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100, 1000])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_parts_are_whole_chunks_and_make_up_all(count, ranks):
    parts = [part_of(count, rank, ranks) for rank in range(ranks)]
    assert [place for part in parts for place in part] == list(range(count))
    assert all(part.start % CHUNK == 0 or not part for part in parts)
    assert len(parts[0]) == max(map(len, parts))


@pytest.mark.parametrize("ranks", [2, 3])
def test_parts_give_the_rows_of_the_whole(ranks):
    images = Noise(100)
    whole = collect({"means": means}, images)["means"]
    parts = [
        collect({"means": means}, images, part=part_of(100, rank, ranks))["means"]
        for rank in range(ranks)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_progress_and_seconds():
    done, seconds = [], {"images": 0.0, "features": 0.0}
    collect({"means": means}, Noise(100), batch=32, progress=done.append, seconds=seconds)
    assert done == [32, 64, 96, 100]
    assert min(seconds.values()) > 0


def test_an_empty_part_has_no_rows():
    assert len(collect({"means": means}, Noise(5), part=part_of(5, 1, 2))["means"]) == 0


def test_examples():
    assert doctest.testmod(module).failed == 0
