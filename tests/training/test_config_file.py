"""Configuration files: every mistake is one line that says where it is and what to do."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvae.errors import UserError
from hvae.training import config_file
from hvae.training.config_file import config_schema, config_yaml, list_configs, load_config

VALID = """\
# Tiny: seconds on any machine.
seed: 3
data:
  source: fashion-mini
  size: 28
  channels: 1
model:
  encoder: 28x1,28d4,7x1
  decoder: 7x1,28m7,28x1
  widths: {7: 48}
train:
  lr: 2e-4
"""

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file into the working folder and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str) -> str:
        Path("my_run.yaml").write_text(text, encoding="utf-8")
        return "my_run.yaml"

    return write_file


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "fashion_mini.yaml").write_text(VALID)
    (folder / "bare.yaml").write_text(VALID.partition("\n")[2])
    monkeypatch.setattr(config_file, "config_dir", lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder


def message(path: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_file_is_read_and_named_after_its_stem(write: Write) -> None:
    config = load_config(write(VALID))
    assert (config.name, config.seed, config.train.lr) == ("my-run", 3, 2e-4)
    assert config.model.widths == {7: 48}


def test_a_name_in_the_file_wins_over_its_stem(write: Write) -> None:
    assert load_config(write(VALID + "name: other\n")).name == "other"


def test_overrides_apply_in_order_and_merge_into_mappings(write: Write) -> None:
    config = load_config(
        write(VALID),
        ["train.lr=1e-3", "train.lr=5e-4", "model.widths.28=32", "data.size=[28, 28]", "name=b"],
    )
    assert config.train.lr == 5e-4
    assert config.model.widths == {7: 48, 28: 32}
    assert config.data.size == (28, 28)
    assert config.name == "b"


def test_an_empty_override_is_null(write: Write) -> None:
    assert load_config(write(VALID), ["data.channels="]).data.channels is None


def test_an_override_may_hold_equals_signs_and_references(write: Write) -> None:
    config = load_config(write(VALID), ["data.source=a=b", "name=run-${seed}"])
    assert (config.data.source, config.name) == ("a=b", "run-3")


@pytest.mark.parametrize("name", ["plain", '"2024"', '"on"', '"010"', '"1e5"'])
def test_the_resolved_file_reads_back_unchanged(write: Write, name: str) -> None:
    config = load_config(write(VALID), [f"name={name}", "train.betas=[0.9, 0.99]"])
    Path("resolved.yaml").write_text(config_yaml(config))
    assert load_config("resolved.yaml") == config


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("model.widht=3", 'unknown key "model.widht"; did you mean "model.width"?'),
        ("trian.lr=3", 'unknown key "trian"; did you mean "train"?'),
        ("train.free_bits=1", 'unknown key "train.free_bits"; did you mean'
         ' "train.objective.free_bits"?'),
        ("umbrella=3", 'unknown key "umbrella"; known here: name, seed, runs_dir, data, model,'
         " train, eval, refine"),
        ("train.lr=fast", '"train.lr": wanted a number, got "fast"'),
        ("train.lr=0", '"train.lr": wanted a number above 0.0, got 0'),
        ("train.lr=true", '"train.lr": wanted a number, got true'),
        ("train.images=1e5", '"train.images": wanted a whole number, got 100000.0; write 100000'),
        ("train.optimizer=sgd", "\"train.optimizer\": wanted 'adamax' or 'adamw', got \"sgd\""),
        ("train.betas=[0.9]", '"train.betas[1]": wanted an entry, got [0.9]'),
        ("train=null", '"train": wanted a section of keys, got null'),
        ("data=fashion-mini", '"data": wanted a section of keys, got "fashion-mini"'),
        ("data.size=big", '"data.size": wanted a whole number or a list, got "big"'),
        ("data.size=[28,x]", '"data.size[1]": wanted a whole number, got "x"'),
        ("model.widths.7=x", '"model.widths[7]": wanted a whole number, got "x"'),
        ("name=on", '"name": wanted text, got true; quote it: \'name="on"\''),
        ("name=12", '"name": wanted text, got 12; quote it: \'name="12"\''),
        ("seed=010", "010 is read as 8; write 8 or quote it"),
        ("seed=12:30", "12:30 is read as 750; write 750 or quote it"),
        ("seed=[1,", "the value is not YAML; quote it: 'seed=\"...\"'"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_shown_with_its_cure(write: Write, override: str, wanted: str) -> None:
    assert message(write(VALID), override) == f"{override}: {wanted}"


@pytest.mark.parametrize("override", ["seed", "=1", ".seed=1", "train..lr=1"])
def test_an_override_of_another_form_is_refused(write: Write, override: str) -> None:
    wanted = f'"{override}": wanted key=value, such as train.lr=2e-4'
    assert message(write(VALID), override) == wanted


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("  encoder:", "  encodr:", ':8: unknown key "model.encodr"; did you mean'
         ' "model.encoder"?'),
        ("size: 28", "size: big", ':5: "data.size": wanted a whole number or a list, got "big"'),
        ("size: 28", "size:\n  - 28\n  - x", ':7: "data.size[1]": wanted a whole number, got "x"'),
        ("seed: 3", "seed: 010", ":2: 010 is read as 8; write 8 or quote it"),
        ("seed: 3", "seed: 3\nseed: 4", ":3: found duplicate key seed"),
        ("seed: 3", "seed: [3", ":3: did not find expected ',' or ']'"),
        ("seed: 3", "name: 2024", ':2: "name": wanted text, got 2024; quote it: "2024"'),
        ("seed: 3", "seed: ${sead}", ": Interpolation key 'sead' not found"),
        ("seed: 3", "seed: ???", ": Missing mandatory value: seed"),
        ("  source: fashion-mini\n", "", ':3: "data.source" is missing'),
        (VALID, "seed: 3\n", ': "data" is missing'),
        (VALID, "- seed\n", ": wanted a mapping of keys to values, such as `seed: 0`"),
        (VALID, "seed\n", ": wanted a mapping of keys to values, such as `seed: 0`"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_shown_with_its_line(
    write: Write, old: str, new: str, wanted: str
) -> None:
    assert message(write(VALID.replace(old, new))) == f"my_run.yaml{wanted}"


def test_a_missing_key_is_never_blamed_on_an_override(write: Write) -> None:
    path = write(VALID.replace("  encoder: 28x1,28d4,7x1\n", ""))
    assert message(path, "model.width=8") == 'my_run.yaml:7: "model.encoder" is missing'


def test_sections_that_disagree_are_named(write: Write) -> None:
    wanted = "my_run.yaml: data.channels is 1, model.channels is 3"
    assert message(write(VALID), "model.channels=3") == wanted


def test_a_quoted_number_is_text_not_a_number(write: Write) -> None:
    assert message(write(VALID.replace("seed: 3", 'seed: "3"'))).endswith(
        '"seed": wanted a whole number, got "3"'
    )


def test_a_value_behind_a_merge_key_is_found_as_far_as_it_can_be(write: Write) -> None:
    text = VALID.replace("  source: fashion-mini\n", "  <<: {source: 12}\n")
    wanted = 'my_run.yaml:3: "data.source": wanted text, got 12; quote it: "..."'
    assert message(write(text)) == wanted


KEYS = st.sampled_from(
    ["name", "seed", "data", "data.size", "data.source", "model", "model.widths", "train.betas",
     "train.objective", "eval.images", "nope", "model.widths.7", "train.lr.deep", "0", "data.0"]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["", "on", "1", "-1", "1e5", ".nan", "[1, x]", "{a: 1}", "{1: {2: 3}}",
                     "${seed}", "${", "???", "&a [*a]", "!!set {a}", "2001-01-01", "'",
                     "<<", "? a", "- - 1"]),
    st.text(max_size=12),
)  # fmt: skip


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(overrides=st.lists(st.builds("{}={}".format, KEYS, VALUES), min_size=1, max_size=3))
def test_whatever_is_overridden_is_accepted_or_refused_in_words(
    write: Write, overrides: list[str]
) -> None:
    with suppress(UserError):
        load_config(write(VALID), overrides)


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(key=KEYS, value=VALUES, line=st.integers(0, VALID.count("\n")))
def test_whatever_is_written_is_accepted_or_refused_in_words(
    write: Write, key: str, value: str, line: int
) -> None:
    lines = VALID.splitlines()
    lines.insert(line, f"{key}: {value}")
    with suppress(UserError):
        load_config(write("\n".join(lines)))


def test_tags_cannot_construct_objects(write: Write) -> None:
    text = message(write("seed: !!python/object/apply:os.getpid []\n"))
    assert text.startswith("my_run.yaml:1: could not determine a constructor")


def test_bytes_that_are_not_text_are_refused(write: Write) -> None:
    Path("picture.yaml").write_bytes(b"\x89PNG\xff")
    assert message("picture.yaml") == "cannot read picture.yaml: it is not UTF-8 text"


@pytest.mark.parametrize("name", ["fashion_mini", "fashion-mini"])
def test_a_shipped_configuration_is_found_by_name(shipped: Path, name: str) -> None:
    assert load_config(name).name == "fashion-mini"


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("fashon-mini", "no such configuration; did you mean fashion_mini?"),
        ("configs/fashion_mini.yaml", "no such configuration; did you mean fashion_mini?"),
        ("shipped/fashion_mni.yaml", "no such configuration; did you mean"
         " shipped/fashion_mini.yaml?"),
        ("zebra", "no such configuration; shipped: bare, fashion_mini"),
        ("shipped", "is a folder, wanted a YAML file; shipped: bare, fashion_mini"),
    ],
)  # fmt: skip
def test_a_missing_file_names_what_is_there(shipped: Path, path: str, wanted: str) -> None:
    assert message(path) == f"{path}: {wanted}"


def test_shipped_configurations_are_listed_with_their_first_line(shipped: Path) -> None:
    assert list_configs() == [("bare", ""), ("fashion_mini", "Tiny: seconds on any machine.")]


def test_the_schema_describes_every_key_and_closes_every_section() -> None:
    schema = config_schema()
    assert schema["additionalProperties"] is False
    train = schema["$defs"]["TrainConfig"]
    assert train["additionalProperties"] is False
    assert all("description" in key for key in train["properties"].values() if "$ref" not in key)


def test_every_shipped_configuration_is_valid() -> None:
    for name, headline in list_configs():
        config = load_config(name)
        assert headline, f"{name} does not open with a comment"
        assert yaml.safe_load(config_yaml(config))["name"] == config.name
