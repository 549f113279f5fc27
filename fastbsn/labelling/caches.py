"""A bound on what PyTorch keeps of the sizes of images that it has seen; imported before PyTorch is, which reads it once.

oneDNN and its interface keep 1024 prepared layers each. Of a teacher `light` of 4 modules every size takes 12 (ONEDNN_VERBOSE=2), so that
these are the layers of some 85 sizes, up to 100 MiB. Among images that all differ in size they are hardly used again: 200 sizes in turn
are prepared anew with either bound. This one costs time where a few dozen sizes return. In a process that had PyTorch before, or where
the user has set them, the bounds stay as they are.
"""

import os

LAYERS = 64

for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
    os.environ.setdefault(name, str(LAYERS))
