"""Written forms of norms: for each, the expression that makes one."""

from collections.abc import Callable, Mapping
from typing import Any

from pairform.assemblies.eject.source import Source


def rms_norm(source: Source, spec: Any, width: int, where: str) -> str:
    source.only(spec, where, "eps", "unit_offset", "affine")
    if not spec.affine:
        name = source.define("PlainRMSNorm", PLAIN_RMS_NORM.replace("EPS", repr(spec.eps)))
        return f"{name}({width})"
    initial, scale = ("zeros", "1 + self.weight") if spec.unit_offset else ("ones", "self.weight")
    text = RMS_NORM.replace("EPS", repr(spec.eps)).replace("INITIAL", initial).replace("SCALE", scale)
    return f"{source.define('RMSNorm', text)}({width})"


def layer_norm(source: Source, spec: Any, width: int, where: str) -> str:
    source.only(spec, where, "eps", "bias")
    return f"nn.LayerNorm({width}, eps={spec.eps!r}{'' if spec.bias else ', bias=False'})"


def no_norm(source: Source, spec: Any, width: int, where: str) -> str:
    return "nn.Identity()"


RMS_NORM = '''class NAME(nn.Module):
    """Divides by the root mean square along the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.INITIAL(width))

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden, self.weight.shape, SCALE, EPS)
'''
PLAIN_RMS_NORM = '''class NAME(nn.Module):
    """Divides by the root mean square along the width, without a weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden, (self.width,), None, EPS)
'''
NORMS: Mapping[str, Callable[[Source, Any, int, str], str]] = {
    "rmsnorm": rms_norm,
    "layernorm": layer_norm,
    "none": no_norm,
}


def norm(source: Source, spec: Any, width: int, where: str) -> str:
    """The expression that makes the norm of this spec."""
    form = source.form(NORMS, spec, where)
    return "nn.Identity()" if form is None else form(source, spec, width, where)
