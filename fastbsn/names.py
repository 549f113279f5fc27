"""Names that the command line, the library and the weights files share; nothing is imported for them."""

BACKENDS = ("cuda", "triton", "reference")  # in the order of automatic choice
OPERATIONS = ("triton", "reference")  # backends of single operations, and so of training
DTYPES = ("float32", "bfloat16", "float16")  # of the arithmetic
