"""Models survive being saved, sharded, cast, resized and found on the hub, in both formats."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoTokenizer, T5GemmaForConditionalGeneration

import pairform
from pairform.assemblies.checkpoints.writing import publishing
from tests.broken.damage import INDEX, SINGLE, contents, read_file, refused
from tests.checkpoints import gemma2, t5gemma
from tests.tokenizers_small import tokenizer

Format = Literal["pairform", "transformers"]
FORMATS: tuple[Format, ...] = ("pairform", "transformers")
IDS = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return t5gemma(tmp_path_factory.mktemp("source") / "t5")


def logits(model: pairform.Model) -> torch.Tensor:
    made = model(IDS, decoder_input_ids=IDS[:, :5]).logits
    assert made is not None
    return made


def same_weights(one: pairform.Model, two: pairform.Model) -> bool:
    other = dict(two.named_parameters())
    return {name for name, _ in one.named_parameters()} == set(other) and all(
        tensor.equal(other[name]) for name, tensor in one.named_parameters()
    )


def test_our_format_is_spec_weights_and_provenance(source: Path, tmp_path: Path) -> None:
    model = pairform.load(source)
    pairform.save(model, tmp_path / "one")
    assert contents(tmp_path / "one") == ["config.json", SINGLE, "provenance.json", "spec.json"]
    pairform.save(model, tmp_path / "many", max_shard_size="20KB")
    shards = sorted(path.name for path in (tmp_path / "many").glob("model-*.safetensors"))
    assert len(shards) > 2
    assert contents(tmp_path / "many") == sorted([*shards, INDEX, "config.json", "provenance.json", "spec.json"])
    assert pairform.load_spec(tmp_path / "one" / "spec.json") == model.spec
    assert pairform.load_spec(tmp_path / "many") == model.spec
    recorded = json.loads((tmp_path / "one" / "provenance.json").read_text())["tensors"]
    assert set(recorded) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", ["5GB", "20KB", 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_saved_weights_come_back_bit_for_bit(
    format: Format, size: int | str, dtype: torch.dtype, source: Path, tmp_path: Path
) -> None:
    model = pairform.load(source, dtype=dtype)
    pairform.save(model, tmp_path / "out", format=format, max_shard_size=size)
    again = pairform.load(tmp_path / "out")
    assert same_weights(model, again)
    assert {tensor.dtype for tensor in again.parameters()} == {dtype}
    assert pairform.diff(model.spec, again.spec) == {} or format == "transformers"
    torch.testing.assert_close(logits(again), logits(model))  # where weights lie in memory decides the last bit


@pytest.mark.parametrize("size", ["20KB", "60KB"])
def test_no_shard_is_larger_than_asked_for_unless_one_tensor_is(size: str, source: Path, tmp_path: Path) -> None:
    pairform.save(pairform.load(source), tmp_path / "out", max_shard_size=size)
    for shard in tmp_path.glob("out/*.safetensors"):
        header, data = read_file(shard)
        assert len(data) <= int(size.removesuffix("KB")) * 1000 or len(header) == 2, "the metadata and one tensor"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_on_the_disk_before_it_has_its_name(
    overwrite: bool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    model = pairform.load(source)
    if overwrite:
        pairform.save(model, target)
    before = target.stat().st_ino if overwrite else None
    synced: list[str] = []

    def sync(path: Path) -> None:
        there = target.stat().st_ino if target.exists() else None
        assert (there == before) == (path != target.parent), "files first, then the name"
        synced.append(path.name)

    monkeypatch.setattr(publishing, "sync", sync)
    pairform.save(model, target, overwrite=overwrite)
    assert set(contents(target)) < set(synced)
    assert synced[-1] == tmp_path.name


def test_files_are_those_of_safetensors_own_writer(source: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    pairform.export(source, tmp_path / "ours")
    save_file(load_file(source / SINGLE), tmp_path / SINGLE, {"format": "pt"})
    assert (tmp_path / "ours" / SINGLE).read_bytes() == (tmp_path / SINGLE).read_bytes()


def test_a_dtype_asked_for_casts_every_weight(source: Path) -> None:
    plain, cast = pairform.load(source), pairform.load(source, dtype=torch.bfloat16)
    other = dict(cast.named_parameters())
    assert all(other[name].equal(tensor.bfloat16()) for name, tensor in plain.named_parameters())


def test_a_model_can_be_saved_over_the_folder_it_was_loaded_from(source: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    model = pairform.load(folder)
    before = logits(model)
    pairform.save(model, folder, overwrite=True)
    assert logits(model).equal(before)
    assert logits(pairform.load(folder)).equal(before)
    assert contents(folder) == ["config.json", SINGLE, "provenance.json", "spec.json"]


def test_changing_a_loaded_model_leaves_its_file_alone(source: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    before = (folder / SINGLE).read_bytes()
    with torch.no_grad():
        for parameter in pairform.load(folder).parameters():
            parameter.add_(1)
    assert (folder / SINGLE).read_bytes() == before


def test_a_model_without_weights_is_not_saved(tmp_path: Path) -> None:
    spec = pairform.load_spec("t5gemma-s-s")
    refused(lambda: pairform.save(pairform.build(spec, device="meta"), tmp_path / "new" / "out"), "without data")
    assert contents(tmp_path) == []


def test_a_spec_that_transformers_cannot_say_is_named_and_nothing_is_written(source: Path, tmp_path: Path) -> None:
    spec = pairform.patch(pairform.load(source).spec, {"decoder": {"layer": {"placement": "pre"}}})
    model = pairform.build(spec, seed=0)
    refused(lambda: pairform.save(model, tmp_path / "new" / "out", format="transformers"), "placement", "'pre'")
    assert contents(tmp_path) == []


def test_a_patch_runs_the_same_weights_in_another_way(source: Path) -> None:
    encoder = {"layer": {"branches": {"self_attention": {"mask": {"causal": True}}}}}
    changed = pairform.load(source, patch={"encoder": encoder})
    assert same_weights(changed, pairform.load(source))
    assert not logits(changed).equal(logits(pairform.load(source)))
    refused(lambda: pairform.load(source, patch={"vocabulary": 97}), "embed", "expected [97")
    refused(lambda: pairform.load(source, patch=[1]), "patch", "object")  # type: ignore[arg-type]


def fake_hub(cache: Path, repository: str, revisions: dict[str, Path]) -> None:
    """The hub's cache folder with a snapshot for each revision."""
    home = cache / f"models--{repository.replace('/', '--')}"
    for number, (revision, folder) in enumerate(revisions.items()):
        commit = f"{number:040x}"
        shutil.copytree(folder, home / "snapshots" / commit)
        (home / "refs").mkdir(exist_ok=True)
        (home / "refs" / revision).write_text(commit)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """`lab/gemma` in the hub's cache, with another model at v2, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folders = {"main": gemma2(tmp_path / "main", shard="60KB"), "v2": gemma2(tmp_path / "v2", seed=1, hidden_size=16)}
    fake_hub(tmp_path / "hub", "lab/gemma", folders)
    return folders


def test_a_hub_id_is_read_from_the_cache_at_its_revision(cached: dict[str, Path]) -> None:
    assert same_weights(pairform.load("lab/gemma"), pairform.load(cached["main"]))
    assert same_weights(pairform.load("lab/gemma", revision="v2"), pairform.load(cached["v2"]))
    assert same_weights(pairform.load("lab/gemma", revision=f"{1:040x}"), pairform.load(cached["v2"]))
    refused(lambda: pairform.load("lab/gemma", revision="v3"), "lab/gemma", "'v3'")


def test_sources_on_the_hub_have_revisions_of_their_own(cached: dict[str, Path], tmp_path: Path) -> None:
    pairform.convert(encoder="lab/gemma", decoder="lab/gemma", revisions={"encoder": "v2"}, out=tmp_path / "out")
    made = pairform.load(tmp_path / "out").spec
    assert made.encoder is not None
    assert made.decoder is not None
    assert (made.encoder.width, made.decoder.width) == (16, 32)
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert provenance["sources"]["encoder"]["revision"] == f"{1:040x}", "the commit that v2 was then"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", [40, 96, 200])
def test_a_resized_vocabulary_survives_saving(format: Format, size: int, source: Path, tmp_path: Path) -> None:
    old, model = pairform.load(source), pairform.resize_vocabulary(pairform.load(source), size, seed=3)
    pairform.save(model, tmp_path / "out", format=format)
    again = pairform.load(tmp_path / "out")
    assert again.spec.vocabulary == size
    assert same_weights(again, model)
    kept = min(size, 96)
    for part in ("encoder", "decoder"):
        before, after = (m.get_parameter(f"{part}.embedding.weight") for m in (old, again))
        assert after.shape == (size, 32)
        assert after[:kept].equal(before[:kept])
    ids = IDS % kept
    made = again(ids, decoder_input_ids=ids).logits
    torch.testing.assert_close(made[..., :kept], old(ids, decoder_input_ids=ids).logits[..., :kept])
    if format == "transformers":
        theirs, report = T5GemmaForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        theirs.resize_token_embeddings(size)
        assert theirs.config.vocab_size == size


def test_an_untied_head_and_a_decoder_only_model_are_resized_too(tmp_path: Path) -> None:
    model = pairform.load(gemma2(tmp_path / "gemma"))
    untied = pairform.build(pairform.patch(model.spec, {"head": {"tie": None}}), seed=0)
    before = untied.get_parameter("head.weight").clone()
    pairform.resize_vocabulary(untied, 120)
    assert untied.get_parameter("head.weight")[:96].equal(before)
    assert untied(IDS).logits.shape[-1] == 120
    assert pairform.resize_vocabulary(model, 50).get_parameter("decoder.embedding.weight").shape == (50, 32)


def test_new_rows_depend_on_the_seed_alone(source: Path) -> None:
    rows = [
        pairform.resize_vocabulary(pairform.load(source), size, seed=seed).get_parameter("decoder.embedding.weight")[96:110]
        for size, seed in ((110, 0), (130, 0), (110, 1))
    ]
    assert rows[0].equal(rows[1])
    assert not rows[0].equal(rows[2])


@pytest.mark.parametrize(
    ("size", "words"), [(0, ("size", "0")), (-5, ("size", "-5")), (2, ("tokens.bos",)), (2**40, ("vocabulary",))]
)
def test_a_size_that_cannot_be_is_refused_and_the_model_stays(size: int, words: tuple[str, ...], source: Path) -> None:
    model = pairform.load(source)
    refused(lambda: pairform.resize_vocabulary(model, size), *words)
    assert model.spec == pairform.load(source).spec
    assert same_weights(model, pairform.load(source))


@pytest.fixture
def tokenized(tmp_path: Path) -> dict[str, Any]:
    """Two sources, each with a tokenizer, a chat template and generation settings; the tokenizers are equal."""
    made = {role: tokenizer(gemma2(tmp_path / role, seed=seed)) for seed, role in enumerate(("encoder", "decoder"))}
    for role, folder in made.items():
        (folder / "chat_template.jinja").write_text(f"{{# {role} #}}")
        (folder / "generation_config.json").write_text(json.dumps({"top_k": 5, "_from_model_config": role == "encoder"}))
    return made


COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


@pytest.mark.parametrize("format", FORMATS)
def test_companions_of_the_decoder_come_along(format: Format, tokenized: dict[str, Any], tmp_path: Path) -> None:
    pairform.convert(**tokenized, out=tmp_path / "out", format=format)
    for name in COMPANIONS:
        if format == "pairform" or name != "generation_config.json":
            assert (tmp_path / "out" / name).read_bytes() == (tokenized["decoder"] / name).read_bytes()
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    tokens = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1} if format == "transformers" else {}
    assert settings == {"top_k": 5, "_from_model_config": False, **tokens}
    assert not (tmp_path / "out" / "encoder_tokenizer").exists()


def test_another_tokenizer_of_the_encoder_lies_beside_and_survives_an_export(tokenized: dict[str, Any], tmp_path: Path) -> None:
    tokenizer(tokenized["encoder"], words=["other", "words"])
    pairform.convert(**tokenized, out=tmp_path / "out")
    pairform.export(tmp_path / "out", tmp_path / "exported")
    for folder in (tmp_path / "out", tmp_path / "exported"):
        own, beside = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(folder / "encoder_tokenizer")
        assert own("lazy dog")["input_ids"] == [2, 11, 12]
        assert beside("other words")["input_ids"] == [2, 4, 5]
        assert not (folder / "encoder_tokenizer" / "generation_config.json").exists()


def test_sources_without_companions_are_no_error(source: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(source, tmp_path / "bare", ignore=shutil.ignore_patterns("generation_config.json")))
    pairform.convert(encoder=bare, decoder=bare, out=tmp_path / "out")
    assert contents(tmp_path / "out") == ["config.json", SINGLE, "provenance.json", "spec.json"]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("dtype", torch.int8),
        ("dtype", "bfloat16"),
        ("device", "nowhere"),
        ("device", "cuda:99"),
        ("kernel", "none"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(argument: str, value: Any, source: Path) -> None:
    refused(lambda: pairform.load(source, **{argument: value}), argument, str(value).split(".")[-1])
    if argument != "kernel":
        refused(lambda: pairform.build("t5gemma-s-s", **{argument: value}), argument)
