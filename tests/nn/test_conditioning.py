import pytest
import torch

from hvae.nn.conditioning import ClassEmbedding, ImagePyramid, VectorEmbedding

LEVELS = {16: (16, 32), 8: (8, 16), 4: (4, 8), 1: (1, 2)}


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_classes_and_vectors_become_one_position(ndim):
    classes = ClassEmbedding(ndim, 3, width=5)
    out = classes(torch.tensor([2, 0, -1]))
    assert out.shape == (3, 5, *[1] * ndim)
    assert torch.equal(out[0].flatten(), classes.table.weight[2])
    assert torch.equal(out[1], out[2])
    vectors = VectorEmbedding(ndim, 4, width=5, activation="silu")
    assert vectors(torch.randn(2, 4)).shape == (2, 5, *[1] * ndim)


@pytest.mark.parametrize(
    ("fold", "base"), [(1, (16, 32)), (2, (16, 32)), (1, (4, 8)), (1, (2, 4)), (1, (1, 2))]
)
def test_a_pyramid_has_a_map_per_level(fold, base):
    pyramid = ImagePyramid(3, fold, base, LEVELS, width=6, activation="silu")
    image = torch.randn(2, 3, *(side * fold for side in base), requires_grad=True)
    maps = pyramid(image)
    assert {r: tuple(m.shape) for r, m in maps.items()} == {
        r: (2, 6, *shape) for r, shape in LEVELS.items()
    }
    assert set(pyramid.blocks) == {str(r) for r, shape in LEVELS.items() if shape[0] < base[0]}
    for m in maps.values():
        (gradient,) = torch.autograd.grad(m.sum(), image, retain_graph=True)
        assert gradient.any()


def test_levels_finer_than_the_image_repeat_its_features():
    pyramid = ImagePyramid(1, 1, (4, 8), LEVELS, width=6, activation="silu")
    maps = pyramid(torch.randn(1, 1, 4, 8))
    repeated = maps[4].repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(maps[16], repeated)


@pytest.mark.parametrize("ndim", [1, 3])
def test_pyramids_of_other_dimensions(ndim):
    levels = {r: (r,) * ndim for r in (8, 4, 1)}
    pyramid = ImagePyramid(2, 1, (8,) * ndim, levels, width=4, activation="gelu")
    maps = pyramid(torch.randn(2, 2, *(8,) * ndim))
    assert [tuple(m.shape[2:]) for m in maps.values()] == list(levels.values())
