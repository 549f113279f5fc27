"""What has been labelled: one record per process, and the manifest that makes a label folder of them.

A record, `records/<job>-<i>-of-<n>.jsonl`, holds the rows of every n-th unit; it is written when all of them are labelled or have
failed. The manifest is written when the records of all n processes are there and speak of all units that are in the source.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fastbsn.io.storage import Storage
from fastbsn.io.tars import split_name
from fastbsn.io.weights import save_networks
from fastbsn.labelling.inputs import Row, list_units
from fastbsn.labelling.job import Job
from fastbsn.nets import NoiseModel
from fastbsn.training.identity import digest
from fastbsn.training.label_files import MANIFEST, VERSION


def _name(job: Job, shard: tuple[int, int]) -> str:
    return f"records/{job.digest}-{shard[0]}-of-{shard[1]}.jsonl"


def _joined(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def write_record(output: Storage, job: Job, shard: tuple[int, int], rows: Iterable[str]) -> None:
    """Say that process i of n has done its part. rows: of its images, as JSON, which takes a third of the memory of a dictionary."""
    output.write(_name(job, shard), _joined(sorted(rows, key=lambda row: str(json.loads(row)["image"]))) or b"\n")


def finish(source: Storage, output: Storage, job: Job, processes: int) -> str | None:
    """Write the manifest, if all of n processes have done their part. Any number of processes may do it, at any time.

    Returns:
        None, or a sentence that says what is missing.
    """
    made, failures = list[tuple[str, str]](), list[Row]()  # names and rows, as JSON
    for i in range(processes):
        name = _name(job, (i, processes))
        if not output.exists(name):
            return f"no manifest yet: shard {i}/{processes} has not finished with this model, options, backend and dtype"
        for line in filter(None, output.read(name).decode().split("\n")):
            row = json.loads(line)
            if "label" in row:
                made.append((row["image"], line))
            else:
                failures.append(row)
    done = {split_name(image)[0] for image in (*(image for image, _ in made), *(row["image"] for row in failures))}
    units = set(list_units(source))
    if done != units:
        return (
            f"no manifest yet: {len(units - done)} inputs are new and {len(done - units)} are gone since their shards ran; run them again"
        )
    labels = _joined(line for _, line in sorted(made))
    stored = f"labels-{digest(labels)}.jsonl"
    output.create(stored, labels or b"\n")
    manifest = {
        "version": VERSION,
        "source": source.location,
        "noise": job.noise,
        "noise_model": _store_noise_model(output, job),
        "job": job.description,
        "rows": stored,
        "failures": sorted(failures, key=lambda row: str(row["image"])),
    }
    output.write(MANIFEST, (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode())
    return None


def _store_noise_model(output: Storage, job: Job) -> str | None:
    """Name of the file of the model that fresh noise is drawn from, for the kinds whose noise depends on the image."""
    model = job.predictor.noise_model
    if not isinstance(model, NoiseModel) or model.kind == "gaussian" or not job.predictor.is_teacher:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise_model.safetensors"
        save_networks(path, {"noise_model": model}, {"noise": job.noise})
        name = f"noise_model-{job.digest}.safetensors"
        output.create(name, path.read_bytes())
    return name
