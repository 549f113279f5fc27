"""A bound on what PyTorch keeps of the sizes of images that it has seen; imported before PyTorch is, which reads it once.

oneDNN and its interface keep 1024 prepared layers each. Of a teacher `light` of 4 modules every size takes 12 (ONEDNN_VERBOSE=2), so that
these are the layers of some 85 sizes, up to 100 MiB, which images that all differ in size hardly use again: 200 of them run at 97 % of the
bare network with this bound (`benchmarks.labelling`). In a process that had PyTorch before, or where the user has set them, the bounds
stay as they are.
"""

import os

LAYERS = 64

for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
    os.environ.setdefault(name, str(LAYERS))
