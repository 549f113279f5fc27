"""Labels on a Ray cluster: `pip install fastbsn[ray]`.

Actors read the images and write the labels themselves, with the engine that every other way of running has; only rows return. What a
killed actor or machine had in hand is given to another one, and what it had written is found there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fastbsn.errors import InputError
from fastbsn.io.storage import open_storage
from fastbsn.labelling import Labeller, Options
from fastbsn.labelling.inputs import list_units
from fastbsn.labelling.records import finish, write_record

UNITS = 16  # image files that an actor takes at once


class LabelActor:
    """A `Labeller` as Ray's map_batches calls it: names of units in, rows out."""

    def __init__(self, source: str, output: str, settings: dict[str, Any]):
        self.labeller = Labeller(source, output, **settings)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        labeller = self.labeller
        before = labeller.written
        rows = [json.dumps(row) for row in labeller.run(map(str, batch["unit"]))]
        written = np.zeros(len(rows), int)
        written[:1] = labeller.written - before
        return {"row": np.array(rows), "job": np.array([labeller.job.digest] * len(rows)), "written": written}


def label(
    noisy: str | Path,
    output: str | Path,
    teacher: str | Path,
    device: str = "auto",
    backend: str = "auto",
    dtype: str = "auto",
    options: Options | None = None,
    address: str | None = None,
    actors: int | tuple[int, int] | None = None,
    gpus: float | None = None,
) -> tuple[int, list[str]]:
    """Label all images of `noisy` on a Ray cluster; existing labels are kept.

    Args:
        noisy, output: places that every machine of the cluster sees under these names: shared folders, or URLs.
        teacher: labelling model: a file that every machine sees, or a bundled name.
        device, backend, dtype, options: see `labelling.Labeller`.
        address: of the cluster; default: RAY_ADDRESS, else one on this machine.
        actors: number of processes, or (least, most); default: one per GPU, or per CPU where there is none.
        gpus: GPUs of each; default 1 where the cluster has any.

    Returns:
        Number of labels written now (by actors that lived), and one sentence per image that could not be labelled.

    Raises:
        InputError: no images, or Ray is not installed.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy
    except ImportError as error:
        raise InputError(f"Ray cannot be imported ({error}); install fastbsn[ray]") from error
    source, target = open_storage(noisy), open_storage(output)
    settings = {"teacher": str(teacher), "device": device, "backend": backend, "dtype": dtype, "options": options}
    units = list_units(source)
    ray.init(address, ignore_reinit_error=True, log_to_driver=False)
    cluster = ray.cluster_resources()
    if gpus is None:
        gpus = 1.0 if cluster.get("GPU") else 0.0
    least, most = _pool(actors, int(cluster["GPU"] / gpus) if gpus else int(cluster["CPU"]))
    blocks = min(len(units), max(4 * most, -(-len(units) // UNITS)))
    items = ray.data.from_items([{"unit": unit} for unit in units], override_num_blocks=blocks)
    made = items.map_batches(
        LabelActor,
        fn_constructor_args=(source.location, target.location, settings),
        batch_size=UNITS,
        compute=ActorPoolStrategy(min_size=least, max_size=most),
        num_cpus=1,
        num_gpus=gpus,
    )
    rows, jobs, written = list[str](), set[str](), 0
    for batch in made.iter_batches(batch_size=None):
        rows += map(str, batch["row"])
        jobs |= set(batch["job"])
        written += int(sum(batch["written"]))
    if len(jobs) > 1:
        raise InputError(f"actors on {len(jobs)} kinds of devices or backends; expected one kind: name --device, --backend and --dtype")
    ending = ray.remote(num_cpus=1, num_gpus=gpus)(_finish)  # where the actors were: the job says what they ran on
    ray.get(ending.remote(source.location, target.location, settings, rows))
    failures = sorted((row["image"], row["failure"]) for row in map(json.loads, rows) if "failure" in row)
    return written, [f"{image}: {failure}" for image, failure in failures]


def _pool(actors: int | tuple[int, int] | None, default: int) -> tuple[int, int]:
    least, most = (1, max(1, default)) if actors is None else (actors, actors) if isinstance(actors, int) else actors
    if not 1 <= least <= most:
        raise InputError(f"actors={actors}; expected a number of at least 1, or (least, most)")
    return least, most


def _finish(source: str, output: str, settings: dict[str, Any], rows: list[str]) -> None:
    labeller = Labeller(source, output, **settings)
    write_record(labeller.output, labeller.job, (0, 1), rows)
    finish(labeller.source, labeller.output, labeller.job, 1)
