"""Attention over tiles of scores that fit into a CPU's caches: what the `chunked` kernel computes."""
