"""Attention blocks, the masks that they make, and the kernels that compute them."""
