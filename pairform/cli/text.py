"""Text generation with a checkpoint's model and tokenizers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pairform.registry import CheckpointError, InputError, Problem, not_installed, read_bytes

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from pairform.assemblies.generation.options import CallTokens
    from pairform.assemblies.specs.generation import GenerationSpec
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
        remedy: str = "Give token ids with --ids.",
    ) -> None:
        """remedy: what to do if there is no tokenizer."""
        from pairform import load
        from pairform.assemblies.checkpoints.reading.hub import find_folder

        self.folder = find_folder(ref)
        self.model = load(self.folder, device=device, dtype=dtype, quantise=quantise, prepack=prepack)
        self.device, self.remedy = device, remedy

    @property
    def reads(self) -> str:
        """The stack that reads the input."""
        return next(iter(self.model.spec.stacks))

    @property
    def vocabulary(self) -> int:
        """The number of token IDs of the input."""
        return self.model.spec.vocabulary_of(self.reads)

    def settings(self, given: "GenerationSpec") -> "GenerationSpec":
        """The settings of generation: those of the model's folder, with those that are given."""
        return self.model.generation.updated(given)

    def ends(self, settings: "GenerationSpec") -> tuple[int, ...]:
        """The tokens that end an output."""
        return self.call_tokens(settings).ends

    def call_tokens(self, settings: "GenerationSpec") -> "CallTokens":
        from pairform.assemblies.generation.options import CallTokens

        return CallTokens.of(settings, self.model.spec.tokens)

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
            missing = not_installed("tokenizer", "tokenizers", "tokenizers")
            raise InputError(replace(missing, remedy=f"{missing.remedy}. {self.remedy}".rstrip())) from None
        path = self.folder / name
        try:
            return whole_texts(Tokenizer.from_buffer(read_bytes(path, COMPANION_BYTES)))
        except OSError as error:
            found = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            raise CheckpointError(Problem(str(path), found, "a tokenizer", self.remedy)) from None
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(Problem(str(path), str(error), "a file that the tokenizers library can read")) from None

    def generate(
        self,
        rows: Sequence[list[int]],
        settings: "GenerationSpec",
        *,
        seed: int | None = None,
        pixels: "torch.Tensor | None" = None,
        cache: "Cache | None" = None,
        streamer: Callable[[int], object] | None = None,
    ) -> list[list[int]]:
        """The generated token ids of each row, up to its end token, without the prompt.

        Of `num_return_sequences`, those of one row are together. streamer: called with each new token, of a single row.
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
        output_ids = self.model.generate(
            input_ids,
            mask,
            generation_config=settings,
            seed=seed,
            pixel_values=pixels,
            cache=cache,
            streamer=None if streamer is None else lambda tokens: streamer(int(tokens[0])),
            tokenizer=self.output_tokenizer if settings.stop_strings else None,
        )
        prompt = width if self.model.encoder is None else 1
        return [self.cut(row, settings) for row in output_ids[:, prompt:].tolist()]

    def cut(self, row: list[int], settings: "GenerationSpec") -> list[int]:
        """A row without the padding after its end."""
        tokens = self.call_tokens(settings)
        length = next((place + 1 for place, token in enumerate(row) if token in tokens.ends), len(row))
        while settings.stop_strings and length and row[length - 1] == tokens.filler not in tokens.ends:
            length -= 1  # such a row ends with any token
        return row[:length]

    def counts_prompt(self, settings: "GenerationSpec") -> bool:
        """Whether a limit counts the tokens of the prompt, its padding included."""
        total = settings.max_length is not None and settings.max_new_tokens is None
        return self.model.encoder is None and (total or settings.min_length > 0)

    def place_pictures(self, ids: list[int], count: int) -> list[int]:
        """The ids with the tokens of `count` pictures."""
        from pairform.assemblies.preprocessing.images import place_pictures

        return place_pictures(ids, count, self.model) if count else ids

    def read_pictures(self, files: Sequence[Path]) -> "torch.Tensor | None":
        """The pixels of pictures; None without any."""
        from pairform.assemblies.preprocessing.images import read_pictures

        weight = next(self.model.parameters())
        return read_pictures(files, self.model).to(weight.device, weight.dtype) if files else None
