"""Written forms of feed-forward blocks and activations."""

from typing import Any

from pairform.assemblies.eject.source import Source, lines

GELU_TANH = '''def NAME(hidden: Tensor) -> Tensor:
    """GELU by its tanh approximation; of many elements and without gradients as the equal x sigmoid(2 u)."""
    if torch.is_grad_enabled() or hidden.numel() <= 8192:
        return functional.gelu(hidden, approximate="tanh")
    inner = torch.addcmul(hidden, hidden * hidden, hidden, value=0.044715)
    return (inner * (2 * math.sqrt(2 / math.pi))).sigmoid() * hidden
'''
ACTIVATIONS = {
    "gelu": "functional.gelu({})",
    "silu": "functional.silu({})",
    "relu": "functional.relu({})",
    "relu_squared": "functional.relu({}).square()",
    "sigmoid": "torch.sigmoid({})",
}


def activated(source: Source, name: str, argument: str, where: str) -> str:
    """The expression of an activation of `argument`."""
    if name == "gelu_tanh":
        return f"{source.define('gelu_tanh', GELU_TANH)}({argument})"
    if name not in ACTIVATIONS:
        source.refuse(where, name, f"one of gelu_tanh, {', '.join(ACTIVATIONS)}")
        return argument
    return ACTIVATIONS[name].format(argument)


def feed_forward(source: Source, spec: Any, width: int, where: str, owner: str) -> str:
    """The expression that makes a `gated` or `mlp` block."""
    source.only(spec, where, "hidden", "activation", "bias")
    gated = spec.name == "gated"
    activation = activated(source, spec.activation, f"self.{'gate' if gated else 'up'}_proj(hidden)", f"{where}.activation")
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
