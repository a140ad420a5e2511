"""Kernels for CUDA devices, which know no layer."""
