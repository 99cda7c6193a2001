"""Writing checkpoint folders: safetensors shards as a stream, companions, checksums, atomic publication."""
