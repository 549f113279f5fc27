"""Triton kernels for the D-BSN. Files with kernels import triton but not torch: they compile where torch is absent."""
