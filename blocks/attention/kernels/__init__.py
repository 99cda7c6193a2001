"""Attention kernels: several implementations of one function of queries, keys, values and an `AttentionCall`."""
