"""`make demo`: a real photograph, noise, the bundled student, and a picture to look at."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fastbsn.denoiser import Denoiser
from fastbsn.evaluation.metrics import psnr
from fastbsn.evaluation.synthetic import parse_noise
from fastbsn.io.image_files import write_image
from fastbsn.pixels import as_unit


def main() -> None:
    """Denoise a photograph that scikit-image ships, print PSNR before and after, write before | after | clean."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--noise", default="gaussian:25")
    parser.add_argument("--model", default="color-awgn")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo/before_after.png"))
    args = parser.parse_args()
    from skimage import data

    clean = data.chelsea()  # [300, 451, 3] uint8
    noisy = np.rint(np.clip(parse_noise(args.noise).add(as_unit(clean)), 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    denoiser = Denoiser.from_pretrained(args.model)
    output = denoiser(noisy)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_image(args.output, np.concatenate([noisy, output, clean], axis=1))
    before, after = (psnr(as_unit(clean), as_unit(x)) for x in (noisy, output))
    print(f"{args.model} on a photograph {clean.shape} with {args.noise}: {before:.2f} dB -> {after:.2f} dB (PSNR)")
    print(f"before | after | clean: {args.output.resolve()}")


if __name__ == "__main__":
    main()
