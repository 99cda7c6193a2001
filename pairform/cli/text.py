"""Text generation with a checkpoint's model and tokenizers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pairform.registry import CheckpointError, InputError, Problem, not_installed, read_bytes

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from pairform.blocks.cache import Cache

TOKENIZER = "tokenizer.json"


class TextModel:
    """A model with the tokenizers of its folder, which are read when they are used. The encoder may have its own."""

    def __init__(
        self,
        ref: str,
        *,
        device: "str | torch.device" = "cpu",
        dtype: "torch.dtype | None" = None,
        quantise: str | None = None,
        prepack: bool = False,
    ) -> None:
        from pairform import load
        from pairform.assemblies.checkpoints.reading.hub import find_folder

        self.folder = find_folder(ref)
        self.model = load(self.folder, device=device, dtype=dtype, quantise=quantise, prepack=prepack)
        self.device = device

    @property
    def reads(self) -> str:
        """The stack that reads the input."""
        return next(iter(self.model.spec.stacks))

    @property
    def vocabulary(self) -> int:
        """The number of token IDs of the input."""
        return self.model.spec.vocabulary_of(self.reads)

    def setting(self, name: str, options: Mapping[str, Any]) -> Any:
        """A setting of generation: that of `options`, else that of the model's folder."""
        return options.get(name, getattr(self.model.generation, name))

    def ends(self, options: Mapping[str, Any]) -> tuple[int, ...]:
        """The tokens that end an output."""
        chosen = self.setting("eos_token_id", options)
        if chosen is None:
            return self.model.spec.tokens.ends
        return (chosen,) if isinstance(chosen, int) else tuple(chosen)

    @cached_property
    def input_tokenizer(self) -> "Tokenizer":
        from pairform.assemblies.checkpoints.writing.companions import tokenizer_file

        return self.tokenizer(tokenizer_file(self.folder, self.reads))

    @cached_property
    def output_tokenizer(self) -> "Tokenizer":
        return self.tokenizer(TOKENIZER)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of `text` for the stack that reads it. special: add the special tokens that the tokenizer adds."""
        return self.input_tokenizer.encode(text, add_special_tokens=special).ids

    def decode(self, ids: list[int]) -> str:
        return self.output_tokenizer.decode(ids, skip_special_tokens=True)

    def tokenizer(self, name: str) -> "Tokenizer":
        """The tokenizer in a file of the model's folder."""
        from pairform.assemblies.checkpoints.writing.companions import COMPANION_BYTES

        try:
            from tokenizers import Tokenizer

            from pairform.assemblies.preprocessing.tokenizers import whole_texts
        except ImportError:
            missing = not_installed("--text", "tokenizers", "tokenizers")
            raise InputError(replace(missing, remedy=f"{missing.remedy}, or give token ids with --ids")) from None
        path = self.folder / name
        try:
            return whole_texts(Tokenizer.from_buffer(read_bytes(path, COMPANION_BYTES)))
        except OSError as error:
            found = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            raise CheckpointError(Problem(str(path), found, "a tokenizer", "Give token ids with --ids.")) from None
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(Problem(str(path), str(error), "a file that the tokenizers library can read")) from None

    def generate(
        self,
        rows: Sequence[list[int]],
        *,
        pixels: "torch.Tensor | None" = None,
        cache: "Cache | None" = None,
        streamer: Callable[[int], object] | None = None,
        **options: Any,
    ) -> list[list[int]]:
        """The generated token ids of each row, up to its end token, without the prompt.

        streamer: called with each new token, of a single row.
        """
        import torch

        width = max(map(len, rows))
        largest = max(map(max, rows))
        if largest >= self.vocabulary:
            raise InputError(Problem("input_ids", str(largest), f"token ids up to {self.vocabulary - 1}"))
        filler = self.model.spec.tokens.pad or 0
        input_ids = torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], device=self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        mask = (torch.arange(width, device=self.device) < lengths[:, None]).long()
        given = {name: value for name, value in (("pixel_values", pixels), ("cache", cache)) if value is not None}
        if streamer is not None:
            put = streamer
            options["streamer"] = lambda tokens: put(int(tokens[0]))
        if self.setting("stop_strings", options):
            options["tokenizer"] = self.output_tokenizer
        output_ids = self.model.generate(input_ids, mask, **given, **options)
        prompt = width if self.model.encoder is None else 1
        return [self.cut(row, options) for row in output_ids[:, prompt:].tolist()]

    def cut(self, row: list[int], options: Mapping[str, Any]) -> list[int]:
        """A row without the padding after its end."""
        ends = self.ends(options)
        return row[: next((place + 1 for place, token in enumerate(row) if token in ends), len(row))]

    def counts_prompt(self, options: Mapping[str, Any]) -> bool:
        """Whether a limit counts the tokens of the prompt, its padding included."""
        total = self.setting("max_length", options) is not None and self.setting("max_new_tokens", options) is None
        return self.model.encoder is None and (total or self.setting("min_length", options) > 0)

    def with_pictures(self, ids: list[int], files: Sequence[Path]) -> "tuple[list[int], torch.Tensor]":
        """The ids with the tokens of pictures, and the pictures' pixels."""
        from pairform.assemblies.preprocessing.images import place_pictures, read_pictures

        weight = next(self.model.parameters())
        pixels = read_pictures(files, self.model)
        return place_pictures(ids, len(files), self.model), pixels.to(weight.device, weight.dtype)
