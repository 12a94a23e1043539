"""Kernels in C for the CPU, with PyTorch's operators as the fallback."""
