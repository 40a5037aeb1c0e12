"""What nvcc made of a .cu file: each kernel's registers, spills and accesses to memory.

ptxas tells the first two. The accesses are read from nvdisasm's listing, and line information tells
which statement each of them comes from; it does not change the code.
"""

import importlib.metadata
import linecache
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ARCH = "sm_90"
BYTES = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}  # a suffix; 4 without

PROPERTIES = re.compile(
    r"Function properties for (\w+)\n"
    r" +(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
    r".*Used (\d+) registers"
)
LINE = re.compile(r'//## File "([^"]+)", line (\d+)')
# The opcode behind the instruction's address and its predicate.
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\w+ +)?([A-Z][\w.]*)")


@dataclass(frozen=True)
class Access:
    """One instruction on global memory and the source lines it comes from, innermost first."""

    opcode: str
    lines: tuple[tuple[str, int], ...]

    @property
    def bytes(self) -> int:
        return next((BYTES[part] for part in self.opcode.split(".") if part in BYTES), 4)

    @property
    def kind(self) -> str:
        name = self.opcode.split(".")[0]
        return "store" if name in ("ST", "STG") else "load" if name.startswith("LD") else "atomic"

    def source(self) -> list[str]:
        return [linecache.getline(file, line).strip() for file, line in self.lines]

    def __str__(self) -> str:
        places = [f"{Path(file).name}:{line}" for file, line in self.lines]
        return f"{self.opcode} at {' < '.join(places)}"


@dataclass
class Kernel:
    name: str  # forward_runs, nll_blocks<3>
    storage: str  # float, BFloat16, Float16 or double
    is_vector: bool
    registers: int
    stack_bytes: int
    spill_bytes: int
    local_accesses: int  # LDL and STL
    accesses: list[Access]

    def __str__(self) -> str:
        name, _, rest = self.name.partition("<")
        options = [self.storage, *rest.rstrip(">").split(", ")] if rest else [self.storage]
        return f"{name}<{', '.join(options + ['vector'] * self.is_vector)}>"


def output_of(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def find_nvdisasm() -> Path:
    try:
        files = importlib.metadata.files("nvidia-cuda-nvdisasm") or []
        return next(Path(file.locate()) for file in files if file.name == "nvdisasm")
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        found = shutil.which("nvdisasm")
        assert found, "nvdisasm is missing beside nvcc; pip install -r requirements-dev.txt"
        return Path(found)


def compile_kernels(nvcc: Sequence[str | Path], source: Path, cubin: Path) -> list[Kernel]:
    """The kernels of a file. `nvcc` is the command with its flags, but for the architecture."""
    options = [f"-arch={ARCH}", "-cubin", "-lineinfo", "-Xptxas=-v"]
    report = output_of([*nvcc, *options, source, "-o", cubin])
    listings = dict(split_listing(output_of([find_nvdisasm(), "-c", "-gi", "-ndf", cubin])))
    resources = {name: list(map(int, rest)) for name, *rest in PROPERTIES.findall(report)}
    entries = re.findall(r"Compiling entry function '(\w+)'", report)
    return [
        read_kernel(demangled, resources[entry], listings[entry])
        for entry, demangled in zip(entries, demangle(entries), strict=True)
    ]


def demangle(names: Sequence[str]) -> list[str]:
    return output_of(["c++filt", *names]).splitlines()


def split_listing(text: str) -> Iterator[tuple[str, list[str]]]:
    """(Mangled name, lines) of each kernel."""
    parts = re.split(r"^\.text\.(\w+):$", text, flags=re.MULTILINE)
    for name, code in zip(parts[1::2], parts[2::2], strict=True):
        yield name, code.splitlines()


def read_kernel(demangled: str, resources: Sequence[int], listing: list[str]) -> Kernel:
    bare = re.sub(r"\w+::|\(anonymous namespace\)::", "", demangled)
    match = re.match(r"(?:void )?(\w+)(?:<(.*?)>)?\(", bare)
    assert match, f"unexpected name of a kernel: {demangled}"
    name, (storage, *options) = match[1], (match[2] or "-").split(", ")
    is_vector = "true" in options
    if numbers := [option for option in options if option not in ("true", "false")]:
        name += f"<{', '.join(numbers)}>"
    stack, spilled, reloaded, registers = resources
    accesses = list(read_accesses(listing))
    local = [a for a in accesses if a.opcode.startswith(("LDL", "STL"))]
    global_accesses = [a for a in accesses if a not in local]
    return Kernel(
        *(name, storage, is_vector, registers, stack, max(spilled, reloaded), len(local)),
        global_accesses,
    )


def read_accesses(listing: list[str]) -> Iterator[Access]:
    """Loads, stores and atomics on global and local memory."""
    lines: list[tuple[str, int]] = []
    after_code = False
    for text in listing:
        if place := LINE.search(text):
            lines = [] if after_code else lines  # one place for the code behind it, with callers
            lines.append((place[1], int(place[2])))
            after_code = False
        elif code := INSTRUCTION.search(text):
            after_code = True
            name = code[1].split(".")[0]
            if re.fullmatch(r"LD|LDG|LDGSTS|LDL|ST|STG|STL|ATOM|ATOMG|RED|REDG", name):
                yield Access(code[1], tuple(lines))
