"""Random specs in transformers' Auto classes: loaded, run, generated from, saved and loaded again."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import Phase, given, seed, settings
from torch.nn import functional

import pairform
import pairform.interop.transformers as bridge
from pairform.assemblies.checkpoints.writing.config_file import class_of
from tests.catalogue.any_spec import Document, documents
from tests.catalogue.places import answer, inputs
from tests.small_pairs import small_pair

COUNT = int(os.environ.get("PAIRFORM_SPECS", "30"))
"""Specs drawn of each assembly, of which about a third are valid."""
AUTO = {
    "PairformModel": transformers.AutoModel,
    "PairformForConditionalGeneration": transformers.AutoModelForSeq2SeqLM,
    "PairformForCausalLM": transformers.AutoModelForCausalLM,
    "PairformForMaskedLM": transformers.AutoModelForMaskedLM,
    "PairformForSequenceClassification": transformers.AutoModelForSequenceClassification,
    "PairformForTokenClassification": transformers.AutoModelForTokenClassification,
    "PairformForQuestionAnswering": transformers.AutoModelForQuestionAnswering,
}


def loaded(folder: Path, spec: pairform.ModelSpec) -> Any:
    """The model in its Auto class, with every weight found and none left over."""
    model, info = AUTO[class_of(spec)].from_pretrained(folder, output_loading_info=True)
    assert type(model) is getattr(bridge, class_of(spec))
    assert not any(info.values()), info
    return model


def check(spec: pairform.ModelSpec, folder: Path) -> None:
    ours = pairform.build(spec, seed=0)
    pairform.save(ours, folder / "ours")
    theirs, batch = loaded(folder / "ours", spec), inputs(spec)
    if spec.encoder is not None and spec.encoder.token_types:
        batch["token_type_ids"] = batch["input_ids"] % spec.encoder.token_types
    theirs.save_pretrained(folder / "theirs", max_shard_size="3KB")
    for model in (theirs, loaded(folder / "theirs", spec), pairform.load(folder / "theirs")):
        weights, expected = model.state_dict(), ours.state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())
        trained = [{name for name, each in both.named_parameters() if each.requires_grad} for both in (model, ours)]
        assert trained[0] == trained[1]
    # the same memory too: products of matrices that lie elsewhere may be summed in another order
    ours.load_state_dict(theirs.state_dict(), assign=True)
    with torch.no_grad():
        assert torch.equal(answer(theirs, batch), answer(ours, batch))
    if theirs.can_generate():
        batch.pop("decoder_input_ids", None)
        # transformers continues a decoder-only prompt after its last column, even if that is padding
        right = [slice(-2, None)] if spec.encoder is not None else []
        for padding in (slice(0, 0), slice(0, 2), *right):
            mask = torch.ones_like(batch["input_ids"])
            mask[0, padding] = 0
            check_generation(ours, theirs, batch | {"attention_mask": mask}, {"do_sample": False})
            check_generation(ours, theirs, batch | {"attention_mask": mask}, {"do_sample": False, "num_beams": 4})
            check_generation(ours, theirs, batch | {"attention_mask": mask}, {"do_sample": True, "top_k": 20})


def check_generation(ours: pairform.Model, theirs: Any, batch: dict[str, Any], options: dict[str, Any]) -> None:
    """transformers' `generate` over the bridge writes the tokens of pairform's."""
    torch.manual_seed(3)
    expected = ours.generate(**batch, **options, max_new_tokens=4)
    torch.manual_seed(3)
    written = theirs.generate(**batch, **options, max_new_tokens=4)
    # where pad is 0, transformers puts the end token after the end of a beam
    end, begin = ours.spec.tokens.ends[0], 1 if ours.encoder is not None else batch["input_ids"].shape[1]
    ended = (written[:, begin:] == end).cumsum(1)
    after = functional.pad(ended[:, :-1], (1 + begin, 0)) > 0
    assert torch.equal(written.masked_fill(after, 0), expected), options


@pytest.mark.parametrize("assembly", ["encoder_decoder", "decoder_only", "encoder_only"])
def test_random_specs_in_the_auto_classes(assembly: str) -> None:
    valid = 0

    @seed(7)
    @settings(max_examples=COUNT, phases=[Phase.generate])
    @given(documents(assembly))
    def run(document: Document) -> None:
        nonlocal valid
        try:
            spec = pairform.load_spec(document)
        except pairform.PairformError:
            return
        with tempfile.TemporaryDirectory() as folder:
            check(spec, Path(folder))
        valid += 1

    run()
    assert valid >= COUNT / 10


def test_a_folder_with_two_specs_is_refused(tmp_path: Path) -> None:
    """spec.json was changed by hand, and config.json was not."""
    pairform.save(pairform.build(small_pair(), seed=0), tmp_path / "pair")
    spec = json.loads((tmp_path / "pair" / "spec.json").read_text())
    spec["decoder"]["embedding"]["scale"] = 2.0
    (tmp_path / "pair" / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(pairform.PairformError, match=r"config\.json"):
        transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "pair")
