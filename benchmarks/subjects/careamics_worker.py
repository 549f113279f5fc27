"""Noise2Void of CAREamics 0.3 on arrays from files; runs in an environment that has careamics and not fastbsn.

    python careamics_worker.py FOLDER MINUTES

Reads train.npz and test.npz (images [C, H, W] float32), writes output.npz (the denoised test images, seconds, version).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from careamics import CAREamist, __version__
from careamics.config import create_advanced_n2v_config

PATCH, BATCH = 64, 16
STEPS = 200  # per epoch: the model is kept at the end of one, and the time is up in the middle of one
MULTIPLE = 8  # pixels; three poolings


def read(path: Path) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return [file[f"arr_{i}"] for i in range(len(file.files))]


def predict(model: CAREamist, image: np.ndarray, gray: bool) -> np.ndarray:
    _, h, w = image.shape
    padded = np.pad(image, ((0, 0), (0, -h % MULTIPLE), (0, -w % MULTIPLE)), mode="reflect")
    outputs, _ = model.predict(padded[0] if gray else padded, num_workers=0)
    return np.asarray(outputs[0]).reshape(padded.shape)[:, :h, :w]


def main(folder: Path, minutes: float) -> None:
    train, test = read(folder / "train.npz"), read(folder / "test.npz")
    gray = len(train[0]) == 1
    config = create_advanced_n2v_config(
        experiment_name="n2v",
        data_type="array",
        axes="YX" if gray else "CYX",
        n_channels=None if gray else len(train[0]),
        independent_channels=False,
        patch_size=(PATCH, PATCH),
        batch_size=BATCH,
        num_epochs=10**6,
        num_steps=STEPS,
        num_workers=0,
        trainer_params={"max_time": {"seconds": round(60 * minutes)}, "enable_model_summary": False},
        seed=1,
    )
    model = CAREamist(config, work_dir=folder, enable_progress_bar=False)
    model.train(train_data=[x[0] for x in train] if gray else train)
    predict(model, test[0], gray)
    start = time.perf_counter()
    outputs = [predict(model, x, gray) for x in test]
    np.savez(folder / "output.npz", *outputs, seconds=time.perf_counter() - start, version=__version__)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
