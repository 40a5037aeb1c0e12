"""The `data` section of a configuration."""

from typing import Annotated, Literal

from pydantic import Field

from hvae.section import Section

Pixels = Annotated[int, Field(ge=1)]


class DataConfig(Section):
    """Which images are read, to what size, and how they are batched."""

    source: str = Field(min_length=1)
    """An embedded set (fashion-mini, emoji-32), fashion-mnist, shapes, a folder of images, one made
    by `hvae data prepare`, or a .npz/.npy file; kind:PATH forces the reading."""

    size: Pixels | tuple[Pixels, Pixels] | None = None
    """Height and width in pixels; one number for a square. Null: the size the images share."""

    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for RGB. Null: what the images share."""

    batch: int = Field(default=32, ge=1)
    """Images per step, over all devices together."""

    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes that decode image files, for each training process; 0 decodes in a thread of it.
    Auto: beside a GPU the cores there are, shared among its processes, 16 at most; 0 on a CPU.
    Prepared folders and arrays are not decoded and take none."""

    skip_bad: bool = False
    """Leave unreadable files out, with a warning that names them, instead of stopping at one.
    Decodes the whole set once at the start."""

    flip: bool = False
    """Mirror every training image left to right with probability one half."""

    @property
    def height_width(self) -> tuple[int, int] | None:
        """The wanted (height, width), or None for the images' own."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size
