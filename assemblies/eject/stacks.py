"""Written forms of branches, layers and stacks."""

from dataclasses import dataclass
from typing import Any

from pairform.assemblies.eject.attention import attention
from pairform.assemblies.eject.feed_forwards import feed_forward
from pairform.assemblies.eject.masks import own_mask
from pairform.assemblies.eject.norms import norm
from pairform.assemblies.eject.positions import BIASED, bias, is_rotated, rotation
from pairform.assemblies.eject.source import Source, call, chosen, lines
from pairform.assemblies.specs.model import LayerSpec, StackSpec
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


@dataclass
class Stack:
    """The written form of a stack: the name of its class, and the arguments of its forward after the hidden states."""

    name: str
    arguments: list[str]


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


def stack(source: Source, spec: StackSpec, sizes: Sizes, where: str, *, embeds: bool) -> Stack:
    """Write a stack. embeds: it has an embedding of its own."""
    source.only(
        spec,
        where,
        "width",
        "depth",
        "embedding",
        "layer",
        "cycle",
        "overrides",
        "final_norm",
        "dropout",
        "vocabulary",
        "tokens",
        "max_length",
        "position",
        "embedding_norm",
        "vision",
    )
    if spec.vision is not None:
        source.refuse(f"{where}.vision", "a vision tower", "nothing", "Set it to null to write the part that reads text.")
    owner = where.capitalize()
    decoder = owner == "Decoder"
    reads = any(
        block.name in ("cross_attention", "merged_attention") for each in spec.layers for block in each.branches.values()
    )
    masks: dict[str, int] = {}
    rotations: dict[str, int] = {}
    mask_kinds, rotation_kinds, classes = [], [], []
    tables: list[tuple[int, str, Any]] = []
    rotates = any(is_rotated(block) for each in spec.layers for block in each.branches.values() if hasattr(block, "position"))
    arguments = ["mask", *(["rotation"] if rotates else []), *(["source", "source_mask"] if reads else [])]
    arguments += ["cache"] if decoder else []
    for index, layer in enumerate(spec.layers):
        place = f"{where}.layers[{index}]"
        own = [name for name in layer.present if layer.branches[name].name in ("self_attention", "merged_attention")]
        if len(own) != 1:
            source.refuse(f"{place}.order", f"{len(own)} branches that attend to their own sequence", "one")
            continue
        block: Any = layer.branches[own[0]]
        at = f"{place}.branches.{own[0]}"
        if block.position.name not in ("rope", "none", "t5_relative"):
            source.refuse(f"{at}.position", block.position.name, "one of rope, none, t5_relative")
        if block.position.name == "t5_relative":
            if not block.position.shared:
                tables.append((index, own[0], block))
            if len(tables) != 1 or block.position.model_copy(update={"shared": False}) != tables[0][2].position:
                source.refuse(f"{at}.position", "a bias of its own", "one bias, of the first layer, for all")
        elif tables:
            source.refuse(f"{at}.position", block.position.name, "t5_relative, as in the first layer")
        mask = own_mask(source, block.mask, f"{at}.mask", owner)
        mask_kinds.append(masks.setdefault(mask, len(masks)))
        if is_rotated(block):
            made = rotation(source, block, block.head_dim or sizes.width // block.heads, at)
            rotation_kinds.append(rotations.setdefault(made, len(rotations)))
        elif rotates:  # not read
            rotation_kinds.append(0)
        classes.append(layer_class(source, layer, sizes, place, owner, arguments))
    if source.problems:
        return Stack(owner, arguments)
    made_layers = [f"{classes[0]}() for _ in range({spec.depth})"]
    if len(set(classes)) > 1:
        kinds = list(dict.fromkeys(classes))
        made_layers = [f"kinds = ({', '.join(kinds)})"]
        made_layers += [f"{chosen('kinds', [kinds.index(name) for name in classes])}() for index in range({spec.depth})"]
    body = ["length = hidden.shape[1]"] if decoder or tables else []
    added: Any = spec.position
    if added is not None and added.name != "learned":
        source.refuse(f"{where}.position", added.name, "learned")
    if rotates or added is not None:
        body += [
            "# positions count from the first token that is not padding, also those of cached tokens",
            f"places = torch.arange(valid.shape[1]{' - length, valid.shape[1]' if decoder else ''}, device=valid.device)",
            "positions = places - valid.long().argmax(1, keepdim=True)  # [B, T]",
        ]
    if added is not None:
        offset = f" + {added.offset}" if added.offset else ""
        body.append(f"hidden = hidden + self.position(positions.clamp(min=0){offset})")
    if spec.embedding_norm is not None:
        body.append("hidden = self.embedding_norm(hidden)")
    if rotates:
        body.append(call("rotations = (", rotations, ",)" if len(rotations) == 1 else ")"))
    if tables:
        _, name, block = tables[0]
        made_bias = bias(source, block.position)
        body += [
            "# the bias of all layers is that of the first",
            f'table = self.get_parameter("layers.0.{name}.block.position.table.weight")',
            f"bias = {made_bias}(table, length, valid.shape[1])",
        ]
        add = source.define("biased", BIASED)
        masks = {f"{add}({mask}, bias)": kind for mask, kind in masks.items()}
    body.append(call("masks = (", masks, ",)" if len(masks) == 1 else ")"))
    given = [chosen("masks", mask_kinds), *([chosen("rotations", rotation_kinds)] if rotates else [])]
    given += ["source", "source_mask"] if reads else []
    given += ["caches[index]"] if decoder else []
    indexed = any("index" in each for each in given)
    parameters = ["hidden: Tensor", "valid: Tensor", *(["source: Tensor", "source_mask: Tensor"] if reads else [])]
    parameters += ["caches: list[Cache]"] if decoder else []
    covered = "L], over cached and new tokens" if decoder else "T]"
    first = None
    if spec.embedding_norm is not None:
        first = norm(source, spec.embedding_norm, sizes.width, f"{where}.embedding_norm")
    ends = norm(source, spec.norm, sizes.width, f"{where}.final_norm")
    text = lines(
        "class NAME(nn.Module):",
        f'    """{spec.depth} layers of width {sizes.width}."""',
        "",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        [f"        self.embedding = {embedding(source, spec.embedding, sizes, f'{where}.embedding')}"] if embeds else [],
        [] if added is None else [f"        self.position = nn.Embedding({added.length}, {sizes.width})"],
        [] if first is None else [f"        self.embedding_norm = {first}"],
        [f"        {line}" for line in made_layers[:-1]],
        f"        self.layers = nn.ModuleList({made_layers[-1]})",
        [
            f'        position = nn.ModuleDict({{"table": nn.Embedding({block.position.buckets}, {block.heads})}})',
            f'        self.get_submodule("layers.0.{name}.block").add_module("position", position)',
        ]
        if tables
        else [],
        f"        self.norm = {ends}",
        "",
        f"    def forward(self, {', '.join(parameters)}) -> Tensor:",
        f'        """[B, T, {sizes.width}] to the same shape. valid: False at padding, [B, {covered}."""',
        [f"        {line}" for line in body],
        f"        for {'index, layer in enumerate(self.layers)' if indexed else 'layer in self.layers'}:",
        "            " + call("hidden = layer(", ["hidden", *given], indent=12),
        "        output: Tensor = self.norm(hidden)",
        "        return output",
        "",
    )
    return Stack(source.define(owner, text), arguments)
