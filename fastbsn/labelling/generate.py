"""One process of a labelling run: its share of the inputs, with progress."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tqdm import tqdm

from fastbsn.errors import InputError, Interrupted
from fastbsn.io.storage import open_storage
from fastbsn.labelling.engine import Labeller
from fastbsn.labelling.inputs import list_units
from fastbsn.labelling.job import Options
from fastbsn.labelling.records import finish, write_record
from fastbsn.signals import stop_on_signals


def generate(
    noisy: str | Path,
    output: str | Path,
    teacher: str | Path,
    device: str = "auto",
    backend: str = "auto",
    dtype: str = "auto",
    std: bool = False,
    shard: tuple[int, int] = (0, 1),
    progress: bool = True,
    strength: float = 1.0,
    options: Options | None = None,
) -> tuple[int, list[str]]:
    """Write one label per image of `noisy` into `output`; existing labels are kept.

    Args:
        noisy: place of the noisy images: a folder with its sub-folders, or a URL that fsspec understands; PNG, JPEG, TIFF (stacks too),
            .npy, and tar files of them.
        output: place of the labels, made if needed; not inside `noisy`.
        teacher: file written by `train_teacher`; or any student, as file or bundled name.
        device, backend, dtype: what runs the model, see `Denoiser`.
        std, strength: see `Options`; or give all of them as `options`.
        shard: (i, n): label only every n-th file starting at i; the last of n processes writes the manifest.
        progress: show a progress bar.

    Returns:
        Number of labels written now, and one sentence per image that could not be labelled.

    Raises:
        InputError: no images; WeightsError: not a usable model. StorageError: a label could not be written.
        Interrupted: SIGINT or SIGTERM came; the images in hand were finished.
    """
    source, target = open_storage(noisy), open_storage(output)
    if f"{target.location}/".startswith(f"{source.location}/"):
        raise InputError(f"{output}: is inside {noisy}; expected labels outside the folder of the noisy images: choose another place")
    units = list_units(source)[shard[0] :: shard[1]]
    labeller = Labeller(noisy, output, teacher, device, backend, dtype, options or Options(std, strength))
    rows, failures = list[str](), list[tuple[str, str]]()
    start = time.monotonic()
    with stop_on_signals() as stop, tqdm(total=len(units), unit="image", disable=None if progress else True) as bar:
        for row in labeller.run(units, lambda: stop):
            rows.append(json.dumps(row))
            if "failure" in row:
                failures.append((row["image"], f"{row['image']}: {row['failure']}"))
            bar.total = max(bar.total, len(rows))
            windows, passed = labeller.windows, max(time.monotonic() - start, 1e-9)
            text = f"{windows.pixels / passed / 1e6:.2f} Mpixel/s, device computes {windows.seconds / passed:.0%}"
            bar.set_postfix_str(text, refresh=False)
            bar.update()
        if stop.signal is not None:
            raise Interrupted(f"stopped after {len(rows)} images of this run; run the same command again to go on", stop.signal)
    write_record(target, labeller.job, shard, rows)
    finish(source, target, labeller.job, shard[1])
    return labeller.written, [sentence for _, sentence in sorted(failures)]
