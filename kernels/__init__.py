"""Triton kernels for the D-BSN. Files that hold kernels import triton but not torch, so that they compile where torch is absent."""
