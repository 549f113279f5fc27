"""The version, which the weights, the manifests and the command name."""

__version__ = "0.1.0"
