"""Convolution, pooling and LRN on a CPU: compiled kernels, and the algorithms on top of them. Knows no layer or net."""
