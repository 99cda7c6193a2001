"""Attention kernels: one operation, `attend(queries, keys, values)`, by several implementations."""
