"""Pairs in the format of transformers' EncoderDecoderModel (Rothe et al. 2020, arXiv 1907.12461)."""

from pairform.assemblies.families.encoder_decoder.encoder_decoder import FAMILIES as FAMILIES
