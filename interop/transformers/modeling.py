"""pairform's models as classes of transformers, one for each kind of head."""

from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.assemblies.checkpoints.reading.model_folder import SPEC
from pairform.assemblies.checkpoints.writing.config_file import class_of
from pairform.assemblies.checkpoints.writing.shards import write_json
from pairform.assemblies.modeling.model import Model
from pairform.blocks.feedforward import WideLinear
from pairform.blocks.functional.initializers import Constant, initial_of
from pairform.blocks.heads.token_heads import LMHead
from pairform.interop.transformers.cache import PairformCache
from pairform.interop.transformers.configuration import PairformConfig
from pairform.interop.transformers.encoder import EncoderOf, encoder_output
from pairform.interop.transformers.generation import PairformGenerationMixin
from pairform.interop.transformers.outputs import PairformOutput, output_of
from pairform.interop.transformers.projection import OutputProjection
from pairform.registry import InputError, Problem


class PairformPreTrainedModel(Model, PreTrainedModel):
    """A pairform model that is a model of transformers: the same modules and names of weights."""

    config_class = PairformConfig
    base_model_prefix = "pairform"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _supports_sdpa = True
    _supports_attention_backend = False
    _skip_keys_device_placement: ClassVar[Any] = ["past_key_values"]
    _no_split_modules: ClassVar[Any] = ["Layer"]
    needs: ClassVar[str | None] = None
    """The class that the spec's head makes it; None: any head."""

    def __init__(self, config: PairformConfig) -> None:
        PreTrainedModel.__init__(self, config)
        spec = config.model_spec
        if self.needs is not None and class_of(spec) != type(self).needs:
            found = f"the head {spec.head.name!r} in the assembly {spec.assembly}, for {type(self).__name__}"
            raise InputError(Problem("config.spec", found, f"what this class computes; this spec is a {class_of(spec)}"))
        self.assemble(spec)
        causal = self.encoder is None and isinstance(self.head, LMHead)
        self.output_projection = OutputProjection(self, self.head) if causal else None
        self._frozen = [name for name, parameter in self.named_parameters() if not parameter.requires_grad]
        if self.encoder is not None:
            vars(self.encoder)["main_input_name"] = self.main_input_name  # asked of it by `generate`
        if spec.tie_embeddings:
            names = [name for name, _ in self.get_submodule("encoder.embedding").named_parameters()]
            self._tied_weights_keys = {f"decoder.embedding.{name}": f"encoder.embedding.{name}" for name in names}
        self._keep_in_fp32_modules = [name for name, module in self.named_modules() if isinstance(module, WideLinear)]
        PreTrainedModel.post_init(self)
        self.eval()

    def _init_weights(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            initial = initial_of(module, name, self.spec.initializer_range)
            if isinstance(initial, Constant):
                init.constant_(parameter, initial.value)
            else:
                init.normal_(parameter, 0.0, initial.std)

    def forward(  # type: ignore[override]  # it takes transformers' names and returns transformers' output
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        decoder_position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        prefix_lengths: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: PairformCache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: int | Tensor | None = None,
    ) -> PairformOutput | tuple[Any, ...]:
        """The logits, and with `labels` the loss, as `pairform.Model.forward` computes them.

        Args:
            past_key_values: a `PairformCache` of an earlier call.
            use_cache: return a cache. By default only if `past_key_values` is given.
            num_items_in_batch: the number of labels that the sum of the losses is divided by.

        Raises:
            InputError: an argument is invalid, as for `pairform.Model.forward`, or a cache of another library.
        """
        if past_key_values is not None and not isinstance(past_key_values, PairformCache):
            expected = "the cache of an earlier call or of `generate`, a PairformCache"
            raise InputError(Problem("past_key_values", f"a {type(past_key_values).__name__}", expected))
        if past_key_values is None and use_cache and self.decoder is not None and labels is None:
            past_key_values = PairformCache()
        output = Model.forward(
            self,
            input_ids,
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            labels,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            position_ids=position_ids,
            decoder_position_ids=decoder_position_ids,
            token_type_ids=token_type_ids,
            pixel_values=pixel_values,
            prefix_lengths=prefix_lengths,
            encoder_outputs=encoder_output(encoder_outputs),
            cache=None if past_key_values is None else past_key_values.cache,
            output_hidden_states=self.asked("output_hidden_states", output_hidden_states),
            output_attentions=self.asked("output_attentions", output_attentions),
            loss_tokens=num_items_in_batch if labels is not None else None,
        )
        result = output_of(output, past_key_values)
        return result if self.asked("return_dict", return_dict) else result.to_tuple()

    def asked(self, name: str, given: bool | None) -> bool:
        """An argument, by default what the configuration says."""
        return bool(getattr(self.config, name, False) if given is None else given)

    def get_encoder(self, modality: str | None = None) -> EncoderOf:
        """The encoder as a module of its own; `InputError` for a model without one."""
        if self.encoder is None:
            raise InputError(Problem("get_encoder", "a model without an encoder", "one with an encoder"))
        return EncoderOf(self)

    def get_input_embeddings(self) -> nn.Module:
        return next(stack for stack in (self.encoder, self.decoder) if stack is not None).embedding

    def get_output_embeddings(self) -> nn.Module | None:
        """The projection of a decoder-only model's head, for libraries that compute a loss themselves."""
        return self.output_projection

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Module:
        """The embeddings, which keep their size: it is a part of the spec.

        Raises:
            InputError: another size is asked for.
        """
        size: int = self.config.vocab_size  # type: ignore[union-attr, assignment, unused-ignore]
        if new_num_tokens not in (None, size) or size % (pad_to_multiple_of or 1):
            remedy = "`pairform convert --tokenizer` and `--vocabulary` write a model with another vocabulary."
            raise InputError(Problem("new_num_tokens", str(new_num_tokens), f"{size}, the vocabulary of the spec", remedy))
        return self.get_input_embeddings()

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """The labels shifted right, as collators of transformers ask for them."""
        return self.shift_right(labels)

    def _set_gradient_checkpointing(self, enable: bool = True, every_n_layers: int = 1, **_: Any) -> None:
        self.checkpoint_layers((1 if every_n_layers is None else every_n_layers) if enable else "none")

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether some stack keeps only the inputs of its layers for the backward pass."""
        return any(stack.checkpointed for stack in (self.encoder, self.decoder) if stack is not None)

    @classmethod
    def from_pretrained(cls, path: str | Path, *arguments: Any, **options: Any) -> Any:
        """As in transformers.

        Raises:
            InputError: the folder's spec.json holds another spec than its config.json, or than `config`.
        """
        loaded = super().from_pretrained(path, *arguments, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for name in model._frozen:  # transformers makes every weight that it reads trainable
            model.get_parameter(name).requires_grad_(False)
        file = Path(path) / SPEC
        if file.is_file() and load_spec(file) != model.spec:
            remedy = "Load it with pairform.load, and save it again; pairform.load(patch=...) loads a changed spec."
            raise InputError(Problem(str(file), "another spec than in config.json", "the same in both", remedy))
        return loaded

    def save_pretrained(self, save_directory: str | Path, is_main_process: bool = True, **options: Any) -> None:
        """Write a folder that both `from_pretrained` and `pairform.load` read."""
        PreTrainedModel.save_pretrained(self, save_directory, is_main_process=is_main_process, **options)
        if is_main_process:
            write_json(Path(save_directory) / SPEC, self.spec.document())


class PairformModel(PairformPreTrainedModel):
    """A model of any head: hidden states, and logits if it has a head."""


class PairformForConditionalGeneration(PairformGenerationMixin, PairformPreTrainedModel):
    """An encoder-decoder language model."""

    needs = "PairformForConditionalGeneration"


class PairformForCausalLM(PairformGenerationMixin, PairformPreTrainedModel):
    """A decoder-only language model."""

    needs = "PairformForCausalLM"


class PairformForMaskedLM(PairformPreTrainedModel):
    """An encoder with a masked language model's head."""

    needs = "PairformForMaskedLM"


class PairformForSequenceClassification(PairformPreTrainedModel):
    """A classifier of sequences."""

    needs = "PairformForSequenceClassification"


class PairformForTokenClassification(PairformPreTrainedModel):
    """A classifier of tokens."""

    needs = "PairformForTokenClassification"


class PairformForQuestionAnswering(PairformPreTrainedModel):
    """Extractive question answering."""

    needs = "PairformForQuestionAnswering"
