"""The few kernels that we write in C, for the CPU, and PyTorch's own operators where those can't run."""
