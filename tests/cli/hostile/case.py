"""What a hostile input is: something that is made in a folder, and the refusal that it meets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Make = Callable[[Path], object]


def nothing(folder: Path) -> None:
    """Makes no input."""


@dataclass(frozen=True)
class Case:
    """A call that has to end in one line.

    Attributes:
        name: of the test.
        words: arguments, of which `bright` is a folder of good images and `dark` another.
        told: what the line says.
        make: makes the input in the working directory.
        features: the network, unless the words name one.
        environment: variables that are set.
        code: how the command ends: 2 for wrong use, 1 where the machine failed.
    """

    name: str
    words: tuple[str, ...]
    told: str
    make: Make = nothing
    features: str = "odd:Pooled"
    environment: Mapping[str, str] = field(default_factory=dict)
    code: int = 2

    def __str__(self) -> str:
        return self.name

    def arguments(self) -> list[str]:
        """The command line."""
        given = any(word in ("--features", "--help") for word in self.words)
        return [*self.words, *([] if given else ["--features", self.features])]


def writing(name: str, content: bytes | str) -> Make:
    """Returns what writes one file."""

    def make(folder: Path) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    return make
