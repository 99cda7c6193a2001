"""Llama, Mistral, Qwen2 and Qwen3 in transformers' format."""

from pairform.assemblies.families.llama.llama import FAMILIES as FAMILIES
