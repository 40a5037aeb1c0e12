import os

import pytest

from hvae.data.listing import list_images, list_split
from hvae.errors import UserError


def test_images_are_found_at_any_depth_by_suffix(write_images):
    root = write_images("b.PNG", "a/x.jpg", "a/deep/er/y.webp", ".hidden.png", ".git/z.png")
    (root / "notes.txt").write_text("not an image")
    assert list_images(root) == ["a/deep/er/y.webp", "a/x.jpg", "b.PNG"]


def test_an_empty_folder_names_itself_and_the_suffixes(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=rf"no image in {tmp_path}; accepted are \.png, \.jpg"):
        list_images(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone: No such file or directory"):
        list_images(tmp_path / "gone")


def test_circular_links_end(write_images):
    root = write_images("a/x.png", "b/y.png")
    (root / "a" / "up").symlink_to(root)
    (root / "b" / "across").symlink_to(root / "a")
    (root / "self").symlink_to(root / "self")
    assert list_images(root) == ["a/x.png", "b/y.png"]


def test_linked_folders_outside_are_read_once(write_images):
    root = write_images("a.png")
    outside = write_images("x.png", folder="elsewhere")
    for name in ("first", "second"):
        (root / name).symlink_to(outside)
    assert list_images(root) == ["a.png", "first/x.png"]


def test_names_that_are_no_text_are_kept(write_images):
    root = write_images("a.png")
    os.rename(root / "a.png", os.fsencode(root) + b"/\xff.png")
    assert [os.fsencode(name) for name in list_images(root)] == [b"\xff.png"]
    assert len(list_split(root, "train").names) == 1


@pytest.mark.parametrize("held_out", [["test"], ["valid"], ["val"], ["valid", "test"]])
def test_given_splits_are_used_and_test_wins_over_valid(write_images, held_out):
    root = write_images("train/a/1.png", "train/b/2.png", *(f"{s}/{s[0]}/3.png" for s in held_out))
    train, test = list_split(root, "train"), list_split(root, "test")
    assert (train.root, train.names) == (root / "train", ["a/1.png", "b/2.png"])
    assert (test.root, test.names) == (root / held_out[-1], [f"{held_out[-1][0]}/3.png"])
    assert train.everything == test.everything
    assert len(train.everything) == 3


def test_classes_are_those_of_all_splits(write_images):
    root = write_images(
        "train/cat/1.png", "train/dog/2.png", "test/dog/deep/3.png", "test/emu/4.png"
    )
    train, test = list_split(root, "train"), list_split(root, "test")
    assert train.classes == test.classes == ("cat", "dog", "emu")
    assert train.labels(train.names) == [0, 1]
    assert test.labels(test.names) == [1, 2]


def test_images_outside_sub_folders_have_no_class(write_images):
    listing = list_split(write_images("a/1.png", "2.png"), "train")
    assert listing.classes is None
    assert listing.labels(listing.names) is None


def test_without_splits_the_hash_of_the_name_decides(write_images):
    root = write_images(*(f"{i}.png" for i in range(50)))
    train, test = list_split(root, "train"), list_split(root, "test")
    assert sorted(train.names + test.names) == list_images(root)
    assert test.names


def test_train_alone_is_divided_as_if_it_were_the_folder(write_images):
    root = write_images(*(f"train/{i}.png" for i in range(50)))
    assert list_split(root, "test").names == list_split(root / "train", "test").names


def test_test_alone_is_refused(write_images):
    with pytest.raises(UserError, match=r"has valid/ but no train/; name .*set/valid"):
        list_split(write_images("valid/a.png"), "train")


def test_an_empty_split_folder_is_named(write_images):
    root = write_images("train/a.png")
    (root / "test").mkdir()
    with pytest.raises(UserError, match=r"no image in .*/test"):
        list_split(root, "train")
