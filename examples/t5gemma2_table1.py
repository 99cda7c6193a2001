"""Table 1 of the T5Gemma 2 paper (arXiv 2512.14856): our parameter counts next to the printed ones.

The variants are merge patches in t5gemma2_table1.json. No weights are allocated.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pairform

TABLE = Path(__file__).with_suffix(".json")
MILLION = 1_000_000


@dataclass(frozen=True)
class Row:
    """A variant: its parameters and the printed ones, in millions, and how many decoder layers attend to the source."""

    name: str
    model: int
    embedding: int
    reading: str
    printed_model: int
    printed_embedding: int
    score: float


def rows() -> list[Row]:
    table = json.loads(TABLE.read_text("utf-8"))
    base = pairform.load_spec(table["base"])
    return [
        row(name, pairform.patch(base, variant["patch"]), variant["printed"]) for name, variant in table["variants"].items()
    ]


def row(name: str, spec: pairform.ModelSpec, printed: dict[str, float]) -> Row:
    """`model` counts what the paper counts under this name: everything except embeddings."""
    parameters = pairform.inspect(spec, source_length=1, target_length=1).parameters
    return Row(
        name,
        round((parameters["total"] - parameters["embedding"]) / MILLION),
        round(parameters["embedding"] / MILLION),
        reading_layers(spec),
        int(printed["model"]),
        int(printed["embedding"]),
        printed["score"],
    )


def reading_layers(spec: pairform.ModelSpec) -> str:
    """In how many of its layers the decoder attends to the encoder's output."""
    assert spec.decoder is not None, "every variant has a decoder"
    layers = spec.decoder.layers
    readers = {"cross_attention", "merged_attention"}
    reading = [layer for layer in layers if readers & {branch.name for branch in layer.branches.values()}]
    return f"{len(reading)} of {len(layers)}"


def main() -> None:
    print(f"{'':36}{'model':>16}{'embedding':>16}{'source read':>13}{'score':>7}")
    print(f"{'variant':36}" + f"{'ours':>8}{'paper':>8}" * 2 + f"{'in layers':>13}{'paper':>7}")
    for row in rows():
        counts = (row.model, row.printed_model, row.embedding, row.printed_embedding)
        columns = "".join(f"{count:>7}M" for count in counts)
        difference = row.model - row.printed_model
        remark = "" if difference == 0 else f"  {abs(difference)}M {'more' if difference > 0 else 'fewer'} than printed"
        print(f"{row.name:36}{columns}{row.reading:>13}{row.score:>7}{remark}")


if __name__ == "__main__":
    main()
