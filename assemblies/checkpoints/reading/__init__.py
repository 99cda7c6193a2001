"""Reading checkpoint folders: specs, safetensors headers, tensors under pairform's names."""
