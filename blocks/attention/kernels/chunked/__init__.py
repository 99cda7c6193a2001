"""The `chunked` kernel for CPUs: attention over tiles of scores that fit into the caches."""
