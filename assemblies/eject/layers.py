"""Written forms of embeddings, residual branches and layers."""

from typing import Any

from pairform.assemblies.eject.attention import attention
from pairform.assemblies.eject.feed_forwards import feed_forward
from pairform.assemblies.eject.norms import norm
from pairform.assemblies.eject.positions import is_rotated
from pairform.assemblies.eject.source import Source, call, lines
from pairform.assemblies.specs.model import LayerSpec
from pairform.registry import Sizes

BLOCKS = {
    "self_attention": attention,
    "cross_attention": attention,
    "merged_attention": attention,
    "gated": feed_forward,
    "mlp": feed_forward,
}
PLACEMENTS = {
    "pre": ("x + f(norm(x))", "hidden + self.block(self.pre_norm(hidden), *context)SCALE"),
    "post": ("norm(x + f(x))", "self.post_norm(hidden + self.block(hidden, *context)SCALE)"),
    "inner_post": ("x + norm(f(x))", "hidden + self.post_norm(self.block(hidden, *context))SCALE"),
    "sandwich": ("x + norm(f(norm(x)))", "hidden + self.post_norm(self.block(self.pre_norm(hidden), *context))SCALE"),
}
EMBEDDING = '''class NAME(nn.Embedding):
    """Rows of the table times FACTOR."""

    def forward(self, input: Tensor) -> Tensor:
        embedded = super().forward(input)
        return embedded * torch.tensor(FACTOR, dtype=embedded.dtype)
'''
EMBEDDING_WITH_END = '''class NAME(nn.Embedding):
    """Rows of the table times FACTOR; token END has an embedding of its own."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__(count, width)
        self.end_of_image = nn.Parameter(torch.zeros(width))

    def forward(self, input: Tensor) -> Tensor:
        embedded = super().forward(input)
        embedded = embedded * torch.tensor(FACTOR, dtype=embedded.dtype)
        return torch.where(input.eq(END)[..., None], self.end_of_image, embedded)
'''


def embedding(source: Source, spec: Any, sizes: Sizes, where: str) -> str:
    """The expression that makes the embedding."""
    if spec.name != "token":
        source.refuse(where, spec.name, "token")
        return "nn.Identity()"
    source.only(spec, where, "scale", "end_of_image")
    factor = sizes.width**0.5 if spec.scale == "sqrt_width" else float(spec.scale)
    made = f"({sizes.vocabulary}, {sizes.width})"
    if spec.end_of_image is not None:
        text = EMBEDDING_WITH_END.replace("FACTOR", repr(factor)).replace("END", str(spec.end_of_image))
        return source.define("Embedding", text) + made
    return (
        "nn.Embedding" + made if factor == 1.0 else source.define("Embedding", EMBEDDING.replace("FACTOR", repr(factor))) + made
    )


def branch(source: Source, layer: LayerSpec, name: str, sizes: Sizes, where: str, owner: str) -> str:
    """The expression that makes a residual branch."""
    spec: Any = layer.branches[name]
    place = f"{where}.branches.{name}"
    write = source.form(BLOCKS, spec, place)
    if write is None:
        block = "nn.Identity()"
    elif write is attention:
        block = attention(source, spec, sizes, place, owner, source.identifier(name, place))
    else:
        block = feed_forward(source, spec, sizes.width, place, owner)
    residual: Any = layer.residual
    scale = f" * {residual.scale!r}" if residual.name == "scaled" else ""
    times = f" times {residual.scale!r}" if scale else ""
    formula, expression = PLACEMENTS[layer.placement]
    normed = norm(source, layer.norm_of(name), sizes.width, f"{where}.norms.{name}" if name in layer.norms else f"{where}.norm")
    text = lines(
        "class NAME(nn.Module):",
        f'    """{formula}, where f is the block{times}."""',
        "",
        "    def __init__(self, block: nn.Module) -> None:",
        "        super().__init__()",
        [f"        self.pre_norm = {normed}"] if layer.placement in ("pre", "sandwich") else [],
        "        self.block = block",
        [f"        self.post_norm = {normed}"] if layer.placement != "pre" else [],
        "",
        "    def forward(self, hidden: Tensor, *context: Any) -> Tensor:",
        f"        output: Tensor = {expression.replace('SCALE', scale)}",
        "        return output",
        "",
    )
    return f"{source.define('Branch', text, owner)}({block})"


def layer_class(source: Source, layer: LayerSpec, sizes: Sizes, where: str, owner: str, arguments: list[str]) -> str:
    """The name of the class of a layer."""
    source.only(layer, where, "norm", "norms", "placement", "order", "branches", "residual")
    if layer.residual.name == "scaled":
        source.only(layer.residual, f"{where}.residual", "scale")
    elif layer.residual.name != "add":
        source.refuse(f"{where}.residual", layer.residual.name, "one of add, scaled")
    if any(len(group) > 1 for group in layer.parallel_groups):
        source.refuse(f"{where}.order", "parallel branches", "branches one after another")
    made = [
        f"self.{source.identifier(name, f'{where}.order')} = {branch(source, layer, name, sizes, where, owner)}"
        for name in layer.present
    ]
    steps = []
    for name in layer.present:
        given = ["hidden"]
        block = layer.branches[name]
        if block.name in ("self_attention", "merged_attention"):
            given.append("mask")
            if is_rotated(block):
                given.append("rotation")
        if block.name in ("cross_attention", "merged_attention"):
            given += ["source", "source_mask"]
        if block.name in ("self_attention", "cross_attention", "merged_attention") and owner == "Decoder":
            given.append("cache")
        steps.append(f"self.{name}({', '.join(given)})")
    names = ["hidden", *arguments]
    types = {"rotation": "Rotation", "cache": "Cache"}
    text = lines(
        "class NAME(nn.Module):",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        [f"        {line}" for line in made],
        "",
        "    "
        + call("def forward(", ["self", *(f"{name}: {types.get(name, 'Tensor')}" for name in names)], ") -> Tensor:", indent=4),
        [f"        hidden = {step}" for step in steps[:-1]],
        f"        output: Tensor = {steps[-1]}  # [B, T, {sizes.width}]",
        "        return output",
        "",
    )
    return source.define(f"{owner}Layer", text)
