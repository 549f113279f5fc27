"""Which files a command reads, and what each result is called: decided and checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fastbsn.errors import InputError
from fastbsn.io.image_files import NAMES, SUFFIXES

SHOWN = 10  # names in a message


@dataclass
class Sources:
    """jobs: files and their results. others: files in the folders that are of no format that is read."""

    jobs: list[tuple[Path, Path]] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def find_sources(paths: Iterable[Path], output: Path) -> Sources:
    """Files, and those in folders with their sub-folders; hidden ones, and results in `output`, are not read.

    Raises:
        InputError: no images, a result that would replace its input, or two results of one name.
    """
    found, inside = Sources(), output.resolve()
    for path in paths:
        if not path.is_dir():
            found.jobs.append((path, output / path.name))
            continue
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path)
            own = inside != path.resolve() and path.resolve() in inside.parents and inside in file.resolve().parents
            if own or any(part.startswith(".") for part in name.parts) or not file.is_file():
                continue
            if file.suffix.lower() in SUFFIXES:
                found.jobs.append((file, output / name))
            else:
                found.others.append(file)
    if not found.jobs:
        raise InputError(f"no images in {', '.join(map(str, paths))}; expected {NAMES} files")
    seen: dict[Path, Path] = {}
    for source, target in found.jobs:
        if source.resolve() == target.resolve():
            raise InputError(f"{target} is the input itself; give another output folder with -o")
        if seen.setdefault(target, source) != source:
            raise InputError(f"{source} and {seen[target]} would both become {target}; denoise them into two output folders")
    return found


def name_others(others: list[Path]) -> str:
    """A sentence about files that were not read."""
    names = ", ".join(map(str, others[:SHOWN])) + (f" and {len(others) - SHOWN} more" if len(others) > SHOWN else "")
    return f"not read, of no format that is known ({NAMES}): {names}"
