"""How far noise is correlated, measured on the noisy images themselves, and the downsampling stride that removes it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastbsn.pixels import to_unit
from fastbsn.training.imageset import ImageSet

BLOCK = 32  # pixels on a side of the flat blocks in which the noise is looked at
MAX_STRIDE = 5  # larger strides leave too little of the image's structure (Lee et al., AP-BSN, CVPR 2022, table 1)
THRESHOLD = 0.1


def noise_autocorrelation(images: ImageSet, distances: int = 8, flattest: float = 0.05) -> Tensor:
    """Autocorrelation of the noise at 1..distances pixels, [distances], the mean of both axes and all channels.

    The noise is what is left in the flattest blocks (lowest variance, the given fraction of all) of all images after their best
    plane is subtracted.
    """
    axis = torch.linspace(-1, 1, BLOCK)
    basis = torch.stack([torch.ones(BLOCK, BLOCK), axis[:, None].expand(BLOCK, BLOCK), axis[None].expand(BLOCK, BLOCK)]).flatten(1)
    q = torch.linalg.qr(basis.T).Q  # [BLOCK^2, 3]
    blocks = []
    for image in images.at_least(BLOCK).images:
        b = F.unfold(to_unit(image)[:, None], BLOCK, stride=BLOCK).transpose(1, 2).reshape(-1, BLOCK**2)
        blocks.append(b - (b @ q) @ q.T)
    detrended = torch.cat(blocks)
    detrended = detrended[detrended.std(1) > 1e-4]
    if len(detrended) == 0:
        return torch.zeros(distances)
    keep = detrended.var(1).argsort()[: max(1, int(flattest * len(detrended)))]
    x = detrended[keep].unflatten(1, (BLOCK, BLOCK))
    power = (x**2).mean()
    rho = [((x[:, k:] * x[:, :-k]).mean() + (x[:, :, k:] * x[:, :, :-k]).mean()) / (2 * power) for k in range(1, distances + 1)]
    return torch.stack(rho)


def downsampling_stride(images: ImageSet) -> int:
    """Smallest stride from 1 to 5 at which the noise's |autocorrelation| is below 0.1; 5 if there is none."""
    rho = noise_autocorrelation(images, MAX_STRIDE)
    small = (rho.abs() < THRESHOLD).nonzero()
    return int(small[0]) + 1 if len(small) else MAX_STRIDE
