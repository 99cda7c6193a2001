"""Attention: masks as data, kernels by name, and the branches that use them."""
