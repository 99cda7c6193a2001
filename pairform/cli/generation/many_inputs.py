"""Many inputs: lines of JSONL, in batches of similar length, and their results."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pairform.registry import PairformError, Problem, SpecError, in_file, shorten
from pairform.registry.json_values import writable

if TYPE_CHECKING:
    from pairform.assemblies.specs.generation import GenerationSpec
    from pairform.cli.text import TextModel

TEXT, IDS, IMAGES = "text", "input_ids", "images"
OUTPUT_TEXT, OUTPUT_IDS = "output_text", "output_ids"


@dataclass(frozen=True)
class Input:
    """A line of the file: its fields, the token IDs of its input, and its pictures."""

    fields: dict[str, Any]
    ids: list[int]
    images: list[Path]

    @property
    def is_text(self) -> bool:
        return TEXT in self.fields


def read_inputs(file: Path, model: "TextModel") -> list[Input]:
    """The inputs in a JSONL file, each with a text or token IDs, and perhaps with pictures in the file's folder.

    Raises:
        SpecError: the file cannot be read, or a line is no input; it names the line.
    """
    from pairform.training.data.files import read_lines

    found = []
    for where, fields in read_lines(file):
        try:
            images = images_of(fields, file.parent)
            found.append(Input(fields, model.place_pictures(ids_of(fields, model), len(images)), images))
        except PairformError as error:
            raise SpecError(in_file(where, error)) from None
    return found


def ids_of(fields: dict[str, Any], model: "TextModel") -> list[int]:
    from pairform.training.data.files import text_at

    if (TEXT in fields) == (IDS in fields):
        names = ", ".join(shorten(name, 40) for name in list(fields)[:20]) or "none"
        raise SpecError(Problem("", f"the fields {names}", f"one of {TEXT!r} and {IDS!r}"))
    if TEXT in fields:
        ids = model.encode(text_at("", fields, TEXT))
        if not ids:
            raise SpecError(Problem(TEXT, "a text without tokens", "at least one"))
        return ids
    ids, most = fields[IDS], model.vocabulary - 1
    fits = isinstance(ids, list) and ids and all(type(token) is int and 0 <= token <= most for token in ids)
    if not fits:
        raise SpecError(Problem(IDS, shorten(ids), f"a list of token ids from 0 to {most}"))
    return list(ids)


def images_of(fields: dict[str, Any], folder: Path) -> list[Path]:
    """The files of a line's pictures."""
    names = fields.get(IMAGES, [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SpecError(Problem(IMAGES, shorten(names), "a list of the names of image files"))
    missing = next((name for name in names if not (folder / name).is_file()), None)
    if missing is not None:
        raise SpecError(Problem(IMAGES, f"no file {shorten(missing)}", "image files, relative to the folder of the lines"))
    return [folder / name for name in names]


def batches(lengths: Sequence[int], size: int, *, equal: bool) -> Iterator[list[int]]:
    """The numbers of the inputs in batches of at most `size`, the longest first: memory that suffices once suffices to the end.

    equal: only inputs of equal length share a batch.
    """
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if batch and (len(batch) == size or (equal and lengths[batch[0]] != lengths[number])):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def generate_all(
    model: "TextModel",
    inputs: Sequence[Input],
    size: int,
    settings: "GenerationSpec",
    seed: int | None,
    report: Callable[[int], object],
) -> list[dict[str, Any]]:
    """The fields of each input with its output, in the order of the inputs. report: is called with the number just done.

    With several sequences for an input, its output is a list of them.
    """
    count = settings.num_return_sequences
    found: list[dict[str, Any]] = [{}] * len(inputs)
    for batch in batches([len(each.ids) for each in inputs], size, equal=model.counts_prompt(settings)):
        pixels = model.read_pictures([image for number in batch for image in inputs[number].images])
        rows = model.generate([inputs[number].ids for number in batch], settings, seed=seed, pixels=pixels)
        for place, number in enumerate(batch):
            outputs = rows[place * count : (place + 1) * count]
            fields = {OUTPUT_IDS: outputs} | ({OUTPUT_TEXT: list(map(model.decode, outputs))} if inputs[number].is_text else {})
            found[number] = inputs[number].fields | {name: several(values) for name, values in fields.items()}
        report(len(batch))
    return found


def several(values: list[Any]) -> Any:
    """One value as itself, several as a list."""
    return values[0] if len(values) == 1 else values


def as_lines(rows: Sequence[dict[str, Any]]) -> str:
    """JSONL in Unicode, with escapes in a row that UTF-8 cannot write, since it has half of a character in some field."""
    texts = (json.dumps(row, ensure_ascii=False) for row in rows)
    lines = (text if writable(text) else json.dumps(row) for text, row in zip(texts, rows, strict=True))
    return "".join(f"{line}\n" for line in lines)
