"""What a module of the paper D-BSN computes and keeps, by name and in order: the one place that says which slot, matrix or bias is which.

a1, b1 = ReLU(1x1 x); a = ReLU(5x5 a1), b = ReLU(3x3 b1), c = ReLU(1x1 x); j = ReLU(1x1 [a, b, c]); u = j + x; v = ReLU(1x1 u);
y = ReLU(1x1 v).
"""

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
