"""The written form of a stack."""

from typing import Any

from pairform.assemblies.eject.layers import embedding, layer_class
from pairform.assemblies.eject.masks import own_mask
from pairform.assemblies.eject.norms import norm
from pairform.assemblies.eject.positions import BIASED, bias, is_rotated, rotation
from pairform.assemblies.eject.source import Source, call, chosen, lines
from pairform.assemblies.specs.model import StackSpec
from pairform.registry import Sizes


def stack(source: Source, spec: StackSpec, sizes: Sizes, where: str, *, embeds: bool) -> None:
    """Write a stack as a class. embeds: it has an embedding of its own."""
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
        return
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
    source.define(owner, text)
