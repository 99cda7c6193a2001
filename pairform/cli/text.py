"""Text generation with a checkpoint's model and tokenizers."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pairform.registry import CheckpointError, InputError, Problem, not_installed, read_bytes

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

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

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` for the stack that reads it, special tokens included."""
        from pairform.assemblies.checkpoints.writing.companions import tokenizer_file

        return self.tokenizer(tokenizer_file(self.folder, next(iter(self.model.spec.stacks)))).encode(text).ids

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer(TOKENIZER).decode(ids, skip_special_tokens=True)

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

    def generate(self, ids: list[int], **options: Any) -> list[int]:
        """The generated token ids, without the prompt."""
        import torch

        input_ids = torch.tensor([ids], device=self.device)
        largest = self.model.spec.vocabulary_of(next(iter(self.model.spec.stacks))) - 1
        if max(ids) > largest:
            raise InputError(Problem("input_ids", str(max(ids)), f"token ids up to {largest}"))
        output_ids = self.model.generate(input_ids, torch.ones_like(input_ids), **options)
        prompt = len(ids) if self.model.encoder is None else 1
        return output_ids[0, prompt:].tolist()
