"""What a module of the paper D-BSN computes and keeps, by name and in order: the one place that says which slot, matrix or bias is which.

a1, b1 = ReLU(1x1 x); a = ReLU(5x5 a1), b = ReLU(3x3 b1), c = ReLU(1x1 x); j = ReLU(1x1 [a, b, c]); u = j + x; v = ReLU(1x1 u);
y = ReLU(1x1 v).
"""

from __future__ import annotations

from typing import NamedTuple

KEPT = ("x", "a1", "b1", "a", "b", "c", "j", "u", "v")  # activations that the backward pass reads; y is x of the next module
GRADIENTS = ("t2", "t1", "u", "join", "a", "b", "c", "a1", "b1")  # before the ReLU of each layer, of u behind it
BIASES = ("a1", "a2", "b1", "b2", "c", "join", "t1", "t2")
MATRICES = {  # 1x1 layers: the activation each multiplies, and the gradient of what it makes; the join is three that add up
    "a1": ("x", "a1"),
    "b1": ("x", "b1"),
    "c": ("x", "c"),
    "join of a": ("a", "join"),
    "join of b": ("b", "join"),
    "join of c": ("c", "join"),
    "t1": ("u", "t1"),
    "t2": ("v", "t2"),
}
TAPS = {"5x5": 25, "3x3": 9, "1x1": len(MATRICES)}  # [C, C] matrices of a module, in the order of their gradients
PRODUCTS = sum(TAPS.values())


class Place(NamedTuple):
    """Slots of one module of a body: what it reads, where it writes, and the first of six that it keeps for the backward pass, or None."""

    x: int
    a1: int
    b1: int
    y: int
    keep: int | None


def place(m: int, modules: int, keep: bool) -> Place:
    """Of module m. Kept, every activation has a slot of its own, in the order of KEPT, and the last is y: 9 * modules + 1 slots.

    Otherwise four serve any number of modules, and the last y is in the last one: a1 has the first, and x, y and b1 take turns in the
    others, because the module may overwrite x, of which it reads a block's own rows only, with b1 of the next module.
    """
    if keep:
        x = len(KEPT) * m
        return Place(x, x + KEPT.index("a1"), x + KEPT.index("b1"), x + len(KEPT), x + KEPT.index("a"))
    first = m + 2 - modules
    x, y, b1 = (1 + (first + i) % 3 for i in range(3))
    return Place(x, 0, b1, y, None)
