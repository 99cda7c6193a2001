"""Bridges to other libraries: transformers and what is built on it."""
