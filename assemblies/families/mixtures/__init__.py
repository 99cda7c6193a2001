"""Mixtral and Qwen3 MoE in transformers' format."""

from pairform.assemblies.families.mixtures.mixtures import FAMILIES as FAMILIES
