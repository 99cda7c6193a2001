"""The computation of the `chunked` kernel: attention by tiles of scores that fit into a CPU's caches."""
