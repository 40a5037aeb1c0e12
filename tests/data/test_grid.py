import numpy as np
import pytest
import torch
from PIL import Image

from hvae.data import save_grid
from hvae.errors import UserError


def saved(images, path, columns=None) -> np.ndarray:
    save_grid(images, path, columns)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_images_lie_row_by_row_with_gaps(tmp_path):
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 3, 4)
    sheet = saved(images, tmp_path / "a.png", columns=2)
    assert sheet.shape == (3 * 3 + 2 * 2, 2 * 4 + 2)
    for i in range(5):
        row, column = divmod(i, 2)
        assert (sheet[row * 5 : row * 5 + 3, column * 6 : column * 6 + 4] == i).all()
    gaps = np.ones_like(sheet, dtype=bool)
    for i in range(5):
        row, column = divmod(i, 2)
        gaps[row * 5 : row * 5 + 3, column * 6 : column * 6 + 4] = False
    assert (sheet[gaps] == 128).all()


def test_rgb_is_exact(tmp_path):
    image = torch.randint(0, 256, (1, 3, 5, 4), dtype=torch.uint8)
    sheet = saved(image, tmp_path / "a.png")
    np.testing.assert_array_equal(sheet, image[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(9, None, (3, 3)), (10, None, (3, 4)), (2, 8, (1, 2))]
)
def test_sheets_are_near_square_unless_told(tmp_path, count, columns, shape):
    images = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    rows, used = shape
    assert saved(images, tmp_path / "a.png", columns).shape == (rows * 10 - 2, used * 10 - 2)


def test_the_file_appears_whole_in_new_folders_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "deep" / "a.png"
    save_grid(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), path)
    save_grid(torch.ones(1, 1, 2, 2, dtype=torch.uint8), path)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_a_failed_write_keeps_the_old_sheet(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_grid(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), path)
    before = path.read_bytes()

    def fail(_image, file, **_options):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_grid(torch.ones(1, 1, 2, 2, dtype=torch.uint8), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_wrong_input_is_explained(tmp_path):
    good = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"name the file \*\.png instead of a\.jpg"):
        save_grid(good, tmp_path / "a.jpg")
    with pytest.raises(TypeError, match=r"uint8 images, got torch\.float32"):
        save_grid(good.float(), tmp_path / "a.png")
    for shape in [(2, 2), (1, 2, 2, 2), (0, 1, 2, 2)]:
        with pytest.raises(ValueError, match="got"):
            save_grid(torch.zeros(shape, dtype=torch.uint8), tmp_path / "a.png")
    with pytest.raises(ValueError, match="at least 1 column, got 0"):
        save_grid(good, tmp_path / "a.png", columns=0)
