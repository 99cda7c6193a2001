"""Models as ONNX files, in the layout of optimum and transformers.js."""

from pairform.interop.onnx.writing import export as export

__all__ = ["export"]
