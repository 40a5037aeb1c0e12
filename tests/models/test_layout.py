"""The layout grammar: the published strings, levels of any shape, and errors that point."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvae.errors import UserError
from hvae.models import ModelConfig
from hvae.models.layout import DecoderBlock, EncoderBlock, Layout

# name: size, encoder, decoder, blocks of the two (VDVAE, arXiv 2011.10650, published settings)
PUBLISHED = {
    "cifar10": (
        32,
        "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
        "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
        (33, 43),
    ),
    "imagenet32": (
        32,
        "32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
        "1x2,4m1,4x4,8m4,8x9,16m8,16x19,32m16,32x40",
        (48, 78),
    ),
    "imagenet64": (
        64,
        "64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
        "1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
        (65, 75),
    ),
    "ffhq256": (
        256,
        "256x3,256d2,128x8,128d2,64x12,64d2,32x17,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4",
        "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x21,64m32,64x13,128m64,128x7,256m128",
        (68, 66),
    ),
    "ffhq1024": (
        1024,
        "1024x1,1024d2,512x3,512d2,256x5,256d2,128x7,128d2,64x10,64d2,32x14,32d2,16x7,16d2,8x5,"
        "8d2,4x5,4d4,1x4",
        "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x20,64m32,64x14,128m64,128x7,256m128,256x2,"
        "512m256,1024m512",
        (70, 70),
    ),
}


def parse(encoder: str, decoder: str, size: tuple[int, ...] = (32, 32), patch: int = 1) -> Layout:
    return Layout.parse(ModelConfig(encoder=encoder, decoder=decoder, size=size, patch=patch))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_strings_give_the_published_number_of_blocks(name):
    side, encoder, decoder, counts = PUBLISHED[name]
    layout = parse(encoder, decoder, (side, side))
    assert (len(layout.encoder), len(layout.decoder)) == counts
    assert layout.encoder[-1].output_resolution == layout.decoder[0].resolution == 1
    assert layout.decoder[-1].resolution == layout.finest == side


def test_tokens_become_blocks_in_order():
    layout = parse("8x2,8d2,4,4d4,1", "1,4m1,4x2,8m4", (8, 8))
    assert layout.encoder == (
        EncoderBlock(8),
        EncoderBlock(8),
        EncoderBlock(8, pool=2),
        EncoderBlock(4),
        EncoderBlock(4, pool=4),
        EncoderBlock(1),
    )
    assert layout.decoder == (
        DecoderBlock(1),
        DecoderBlock(4, mix_from=1),
        DecoderBlock(4),
        DecoderBlock(4),
        DecoderBlock(8, mix_from=4),
    )


@pytest.mark.parametrize(
    ("size", "shapes"),
    [
        ((8, 8), {8: (8, 8), 4: (4, 4), 1: (1, 1)}),
        ((8, 24), {8: (8, 24), 4: (4, 12), 1: (1, 3)}),
        ((40, 8), {8: (40, 8), 4: (20, 4), 1: (5, 1)}),
        ((8,), {8: (8,), 4: (4,), 1: (1,)}),
        ((16, 8, 24), {8: (16, 8, 24), 4: (8, 4, 12), 1: (2, 1, 3)}),
    ],
)
def test_levels_keep_the_proportions_of_the_data(size, shapes):
    layout = parse("8x1,8d2,4x1,4d4,1x1", "1x1,4m1,8m4", size)
    assert {resolution: layout.shape_at(resolution) for resolution in shapes} == shapes


def test_the_layout_starts_at_the_size_over_the_patch():
    layout = parse("8x1,8d2,4x1", "4x1,8m4", (16, 48), patch=2)
    assert layout.finest == 8
    assert layout.finest_shape == (8, 24)
    assert layout.shape_at(4) == (4, 12)


ENCODER_FORMS = "R, RxN or RdK, as in 32x11,32d2,16x6"
DECODER_FORMS = "R, RxN or RmS, as in 1x1,4m1,4x2"


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("", f'"" at column 1: wanted {ENCODER_FORMS}'),
        ("32x1,", f'"" at column 6: wanted {ENCODER_FORMS}'),
        ("32x2,32q2", f'"32q2" at column 6: wanted {ENCODER_FORMS}'),
        ("32x2, 32 x2", f'"32 x2" at column 7: wanted {ENCODER_FORMS}'),
        ("32x", f'"32x" at column 1: wanted {ENCODER_FORMS}'),
        ("32x-1", f'"32x-1" at column 1: wanted {ENCODER_FORMS}'),
        ("32m2", f'"32m2" at column 1: wanted {ENCODER_FORMS}'),
        ("32x0", '"32x0" at column 1: wanted numbers of at least 1'),
        ("0x3", '"0x3" at column 1: wanted numbers of at least 1'),
        ("32x1,16x1", '"16x1" at column 6: the maps are at resolution 32 here (32x48)'),
        ("32d2,  32x1", '"32x1" at column 8: the maps are at resolution 16 here (16x24)'),
        ("32d5", '"32d5" at column 1: maps of 32x48 cannot be pooled 5-fold'),
        ("32d16,2d4", '"2d4" at column 7: maps of 2x3 cannot be pooled 4-fold'),
    ],
)
def test_errors_of_the_encoder_name_token_and_column(encoder, message):
    with pytest.raises(UserError) as caught:
        parse(encoder, "32x1", (32, 48))
    assert str(caught.value) == f"model.encoder: {message}"


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ("1x1,,4m1", f'"" at column 5: wanted {DECODER_FORMS}'),
        ("1x1,4m", f'"4m" at column 5: wanted {DECODER_FORMS}'),
        ("1x1,4d4", f'"4d4" at column 5: wanted {DECODER_FORMS}'),
        ("1x1,4m0", '"4m0" at column 5: wanted numbers of at least 1'),
        ("2x1", '"2x1" at column 1: the encoder has no level 2; it has 1, 4, 12'),
        ("1x1,12m4", '"12m4" at column 5: no block before it stands at resolution 4'),
        ("4x1,1x1, 12m12", '"12m12" at column 10: no block before it stands at resolution 12'),
        ("4x1,4m4", '"4m4" at column 5: 4 is not a coarser divisor of 4'),
        ("4x1,1m4,12m4", '"1m4" at column 5: 4 is not a coarser divisor of 1'),
        (
            "1x1,4m1",
            '"1x1,4m1" never reaches resolution 12, the finest level '
            "(the shorter side of the data over model.patch)",
        ),
    ],
)
def test_errors_of_the_decoder_name_token_and_column(decoder, message):
    with pytest.raises(UserError) as caught:
        parse("12x1,12d3,4x1,4d4,1x1", decoder, (24, 24), patch=2)
    assert str(caught.value) == f"model.decoder: {message}"


@given(st.lists(st.tuples(st.text(" ", max_size=3), st.sampled_from(["16x1", "16"])), max_size=5))
def test_the_column_is_where_the_token_starts(good):
    text = ",".join([*(indent + token for indent, token in good), "  16z3"])
    with pytest.raises(UserError) as caught:
        parse(text, "16x1", (16, 16))
    column = int(str(caught.value).partition("column ")[2].partition(":")[0])
    assert text[column - 1 :] == "16z3"


def test_an_unset_size_says_which_key_to_set():
    with pytest.raises(UserError) as caught:
        Layout.parse(ModelConfig(encoder="8x1", decoder="8x1"))
    assert str(caught.value) == (
        "model.size is not set; give it, or data.size in a configuration file"
    )


def test_the_patch_must_divide_every_side():
    with pytest.raises(UserError) as caught:
        parse("8x1", "8x1", (16, 18), patch=4)
    assert str(caught.value) == "model.size (16, 18) is not divisible by patch 4"
