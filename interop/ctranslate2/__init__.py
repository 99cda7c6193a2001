"""Encoder-decoders as models of CTranslate2."""

from pairform.interop.ctranslate2.writing import export as export

__all__ = ["export"]
