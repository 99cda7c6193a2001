"""Comparing ONNX files with our model, in onnxruntime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pairform.assemblies.modeling.model import Model
from pairform.interop.onnx.programs import Program
from pairform.registry import OutputError, Problem

SIZES = ((1, 1, 1), (2, 5, 3), (3, 17, 9), (1, 40, 21), (4, 8, 33))
"""Rows, tokens of the source and of the target."""
TOLERANCE = 1e-4
"""Largest difference, relative to the largest value if that is above 1."""
NEW = 6
Session = Any
Inputs: TypeAlias = Mapping[str, Tensor | np.ndarray]


def session(path: Path) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(program: Session, inputs: Inputs) -> dict[str, np.ndarray]:
    """The outputs of a file by name; inputs that it does not have are left out."""
    wanted = {each.name for each in program.get_inputs()}
    given = {name: value.numpy() if isinstance(value, Tensor) else value for name, value in inputs.items() if name in wanted}
    return dict(zip([each.name for each in program.get_outputs()], program.run(None, given), strict=True))


@torch.no_grad()
def check(folder: Path, model: Model, made: Mapping[str, Program]) -> str:
    """Compare the files with `model` at five sizes, and their greedy tokens; returns the result as a sentence.

    Raises:
        OutputError: they compute something else.
    """
    sessions = {name.removesuffix(".onnx"): session(folder / name) for name in made}
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for rows, length, target in SIZES:
        ids = tokens(model, (rows, length), generator)
        mask = torch.ones_like(ids)
        mask[0, : length // 3] = 0
        if model.decoder is None:
            errors = [of_encoder(sessions["model"], model, ids, mask)]
        elif model.encoder is None:
            errors = of_lone_decoder(sessions["model"], model, made["model.onnx"], ids, mask)
        else:
            errors = of_pair(sessions, model, ids, mask, tokens(model, (rows, target), generator))
        worst = max(worst, *errors)
    if not worst <= TOLERANCE:
        raise OutputError(Problem("onnx", f"outputs that differ by {worst:.2g}", f"at most {TOLERANCE} of the largest value"))
    if model.decoder is None:
        return f"onnxruntime's outputs differ by at most {worst:.1g} of the largest value, at {len(SIZES)} sizes"
    ids = tokens(model, (2, 7), generator)
    expected = model.generate(ids, torch.ones_like(ids), max_new_tokens=NEW, eos_token_id=())
    found = greedy(sessions, model, made, ids, NEW)
    if not torch.equal(found, expected):
        raise OutputError(Problem("onnx", "other greedy tokens than pairform's", "the same"))
    return (
        f"onnxruntime's logits differ by at most {worst:.1g} of the largest one, at {len(SIZES)} sizes; greedy tokens are equal"
    )


def tokens(model: Model, shape: tuple[int, int], generator: torch.Generator) -> Int[Tensor, "rows length"]:
    """Random tokens that no stack treats in a special way."""
    spec = model.spec
    special = {token for part in spec.stacks for _, token in spec.tokens_of(part).named()}
    ends = (stack.embedding.document().get("end_of_image") for stack in spec.stacks.values())
    special |= {end for end in ends if end is not None}
    most = min(spec.vocabulary_of(part) for part in spec.stacks)
    plain = torch.tensor([token for token in range(most) if token not in special])
    return plain[torch.randint(len(plain), shape, generator=generator)]


def error(found: np.ndarray, expected: Tensor, real: Tensor | None = None) -> float:
    """The largest difference, relative to the largest value above 1, at positions that are `real`."""
    difference = (torch.from_numpy(found) - expected).abs()
    if real is not None:
        difference = difference[real.bool()]
    return float(difference.max() / expected.abs().max().clamp(min=1))


def of_encoder(program: Session, model: Model, ids: Tensor, mask: Tensor) -> float:
    found = run(program, {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)})
    ours = model(ids, mask)
    worst = error(found["last_hidden_state"], ours.last_hidden_state, mask)
    for name in found.keys() - {"last_hidden_state"}:
        per_token = ours.logits.ndim == 3
        worst = max(worst, error(found[name], ours.logits, mask if per_token else None))
    return worst


def of_pair(sessions: Mapping[str, Session], model: Model, ids: Tensor, mask: Tensor, target: Tensor) -> list[float]:
    """Of the encoder, of the decoder on a whole target, and of the decoder on its last token after the others.

    The decoder reads our encoder's output: it would amplify the rounding of the other.
    """
    ours = model(ids, mask, target)
    encoded = run(sessions["encoder_model"], {"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
    hidden = ours.encoder_last_hidden_state
    assert hidden is not None
    errors = [error(encoded, hidden, mask)]
    source: Inputs = {"encoder_attention_mask": mask, "encoder_hidden_states": hidden}
    errors.append(error(run(sessions["decoder_model"], {**source, "input_ids": target})["logits"], ours.logits))
    if target.shape[1] > 1:
        first = run(sessions["decoder_model"], {**source, "input_ids": target[:, :-1]})
        later = run(sessions["decoder_with_past_model"], {**source, **past(first), "input_ids": target[:, -1:]})
        errors.append(error(later["logits"], ours.logits[:, -1:]))
    return errors


def of_lone_decoder(program: Session, model: Model, made: Program, ids: Tensor, mask: Tensor) -> list[float]:
    """On a whole text, and on its second half after the first."""
    ours = model(ids, mask).logits
    places = mask.cumsum(1).sub(1).clamp(min=0)
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": places} | no_past(made, len(ids))
    errors = [error(run(program, given)["logits"], ours, mask)]
    if (half := ids.shape[1] // 2) > 0:
        first = run(program, given | {name: each[:, :half] for name, each in given.items() if name in FED})
        rest = {"input_ids": ids[:, half:], "attention_mask": mask, "position_ids": places[:, half:]}
        errors.append(error(run(program, {**rest, **past(first)})["logits"], ours[:, half:], mask[:, half:]))
    return errors


FED = ("input_ids", "attention_mask", "position_ids")


def past(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The keys and values of one call as inputs of the next."""
    return {name.replace("present", "past_key_values", 1): each for name, each in outputs.items() if name.startswith("present")}


def no_past(made: Program, rows: int) -> dict[str, Tensor]:
    keys = {name: each for name, each in made.example.items() if name.startswith("past_key_values")}
    return {name: each.new_zeros((rows, each.shape[1], 0, each.shape[3])) for name, each in keys.items()}


def greedy(
    sessions: Mapping[str, Session], model: Model, made: Mapping[str, Program], ids: Tensor, count: int
) -> Int[Tensor, "rows length"]:
    """Greedy tokens through the files."""
    mask = torch.ones_like(ids)
    source: Inputs
    given: dict[str, Tensor | np.ndarray]
    if model.encoder is None:
        found, source, given = ids, {}, {**no_past(made["model.onnx"], len(ids))}
        following = program = sessions["model"]
    else:
        hidden = run(sessions["encoder_model"], {"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
        source = {"encoder_attention_mask": mask, "encoder_hidden_states": hidden}
        assert model.spec.tokens.first is not None, "generation began with it"
        found, given = torch.full((len(ids), 1), model.spec.tokens.first), {}
        program, following = sessions["decoder_model"], sessions["decoder_with_past_model"]
    read = found
    for _ in range(count):
        places = torch.arange(found.shape[1] - read.shape[1], found.shape[1]).expand(len(ids), -1)
        fed = {"input_ids": read, "attention_mask": torch.ones_like(found), "position_ids": places.contiguous()}
        outputs = run(program, {**source, **given, **fed})
        read = torch.from_numpy(outputs["logits"][:, -1:].argmax(-1))
        found = torch.cat((found, read), 1)
        # the source's keys and values come from the first call alone
        given, program = {**given, **past(outputs)}, following
    return found
