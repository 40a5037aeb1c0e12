"""The hashes and counts are those of the sets' README files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from hvae.data import embedded
from hvae.data.embedded import emoji_32, fashion_mini

FASHION = {
    "train": (
        "2929ae1c7b89e0ee6587bbe4911fd5f0a5dafe21ae6ed9b737173cbfe20c12c9",
        [942, 1027, 1016, 1019, 974, 989, 1021, 1022, 990, 1000],
    ),
    "test": (
        "09bbac78738f0229a68f7ca74e62665d7fb34f45ea7a3509ab5c4a202c1370de",
        [200, 203, 214, 190, 219, 195, 197, 200, 194, 188],
    ),
}
EMOJI = "f721aab301139c3084bdae1b448a395170ee6b3b70360c98c13565024e866c46"
EMOJI_TEST_NAMES = "f58158f3a121fb0eae8a9cc742d6e46c9fee62422e6df97c9567fed610a90b82"


def everything(source) -> torch.Tensor:
    return source.take(np.arange(len(source)))


@pytest.mark.parametrize("split", ["train", "test"])
def test_fashion_mini_pixels_and_class_counts(split):
    sha256, counts = FASHION[split]
    source = fashion_mini(split)
    assert source.shape == (1, 28, 28)
    assert hashlib.sha256(everything(source).numpy()).hexdigest() == sha256
    assert torch.bincount(source.labels).tolist() == counts
    assert source.classes[9] == "ankle boot"


def test_emoji_pixels_in_order():
    sheet = embedded._cut(embedded.ROOT / "emoji-32" / "sheet.webp", side=32)[:1857]
    assert hashlib.sha256(np.ascontiguousarray(sheet.transpose(0, 2, 3, 1))).hexdigest() == EMOJI


def test_emoji_split_counts_and_names():
    names = (embedded.ROOT / "emoji-32" / "codepoints.txt").read_text().split()
    test_names = [name for name in names if embedded._emoji_in_test(name)]
    assert hashlib.sha256("\n".join(test_names).encode()).hexdigest() == EMOJI_TEST_NAMES
    assert (len(emoji_32("train")), len(emoji_32("test"))) == (1637, 220)
    assert emoji_32("train").shape == (3, 32, 32)
    assert emoji_32("train").labels is None


def test_emoji_statistics():
    images = torch.cat([everything(emoji_32("train")), everything(emoji_32("test"))]).double()
    means = images.mean(dim=(0, 2, 3))
    torch.testing.assert_close(
        means, torch.tensor([210.98, 196.49, 194.70]).double(), atol=5e-3, rtol=0
    )
    assert (everything(emoji_32("test")) == 255).double().mean().item() == pytest.approx(
        0.435, abs=5e-4
    )


def test_variants_of_a_drawing_share_a_side():
    woman, person = "1f469-200d-1f680", "1f9d1-200d-1f680"
    assert embedded._emoji_in_test(woman) == embedded._emoji_in_test(person)


@pytest.mark.parametrize("name", ["fashion-mini", "emoji-32"])
def test_every_set_carries_its_licence(name):
    folder = Path(embedded.ROOT) / name
    assert "Permission is hereby granted" in (folder / "LICENSE").read_text()
    assert (folder / "README.md").is_file()
