"""Written forms of feed-forward blocks and activations."""

from typing import Any

from pairform.assemblies.eject.source import Source, lines
from pairform.blocks.functional.blocked_ops import AT_ONCE
from pairform.blocks.functional.gelu import FEW

GELU_TANH = '''def NAME(hidden: Tensor) -> Tensor:
    """GELU by its tanh approximation, x (1 + tanh(u)) / 2; on a CPU without gradients x sigmoid(2 u), which rounds less."""
    if torch.is_grad_enabled() or hidden.device.type != "cpu" or hidden.numel() <= FEW:
        return functional.gelu(hidden, approximate="tanh")
    inner = torch.addcmul(hidden, hidden * hidden, hidden, value=0.044715)
    return (inner * (2 * math.sqrt(2 / math.pi))).sigmoid() * hidden
'''
BY_ROWS = '''def NAME(hidden: Tensor) -> Tensor:
    """`gelu_tanh`, without gradients of COUNT rows at a time, as pairform computes it: the last ones may be few."""
    if torch.is_grad_enabled():
        return gelu_tanh(hidden)
    return torch.cat([gelu_tanh(rows) for rows in torch.split(hidden.flatten(0, -2), COUNT)]).view_as(hidden)
'''
ACTIVATIONS = {
    "gelu": "functional.gelu({})",
    "silu": "functional.silu({})",
    "relu": "functional.relu({})",
    "relu_squared": "functional.relu({}).square()",
    "sigmoid": "torch.sigmoid({})",
}


def activated(source: Source, name: str, argument: str, where: str, hidden: int, gated: bool) -> str:
    """The expression of an activation of `argument`, `[B, T, hidden]`."""
    if name == "gelu_tanh":
        function = source.define("gelu_tanh", GELU_TANH.replace("FEW", str(FEW)))
        if gated and hidden <= FEW:  # groups of more channels are never small
            function = source.define("gelu_tanh_by_rows", BY_ROWS.replace("COUNT", str(AT_ONCE // hidden)))
        return f"{function}({argument})"
    if name not in ACTIVATIONS:
        source.refuse(where, name, f"one of gelu_tanh, {', '.join(ACTIVATIONS)}")
        return argument
    return ACTIVATIONS[name].format(argument)


def feed_forward(source: Source, spec: Any, width: int, where: str, owner: str) -> str:
    """The expression that makes a `gated` or `mlp` block."""
    source.only(spec, where, "hidden", "activation", "bias")
    gated = spec.name == "gated"
    read = f"self.{'gate' if gated else 'up'}_proj(hidden)"
    activation = activated(source, spec.activation, read, f"{where}.activation", spec.hidden, gated)
    inner = f"{activation} * self.up_proj(hidden)" if gated else activation
    up = f"nn.Linear({width}, {spec.hidden}, bias={spec.bias})"
    text = lines(
        "class NAME(nn.Module):",
        f'    """{width} to {spec.hidden} channels and back{", gated" if gated else ""}."""',
        "",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        [f"        self.gate_proj = {up}"] if gated else [],
        f"        self.up_proj = {up}",
        f"        self.down_proj = nn.Linear({spec.hidden}, {width}, bias={spec.bias})",
        "",
        f"    def forward(self, hidden: Tensor) -> Tensor:  # [B, T, {width}]",
        f"        inner = {inner}  # [B, T, {spec.hidden}]",
        "        output: Tensor = self.down_proj(inner)",
        "        return output",
        "",
    )
    return f"{source.define('FeedForward', text, owner)}()"
