"""Names that the command line, the library and the weights files share; nothing is imported for them."""

AUTOMATIC = ("cuda", "triton", "reference")  # backends, in the order of automatic choice
BACKENDS = (*AUTOMATIC, "openvino")
OPERATIONS = ("triton", "reference")  # backends of single operations, and so of training
DTYPES = ("float32", "bfloat16", "float16")  # of weights and of the arithmetic
ARITHMETIC = (*DTYPES, "int8")
