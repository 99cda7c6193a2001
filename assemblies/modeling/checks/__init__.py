"""Validation of the arguments of `forward` and `generate`, once per call, before anything is computed."""
