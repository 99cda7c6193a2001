"""Settings of generation as options of a command: one for each field of `GenerationSpec`."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter, Signature, signature
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import typer

from pairform.assemblies.specs.generation import GenerationSpec
from pairform.registry.errors import Problem, SpecError

Command = TypeVar("Command", bound=Callable[..., None])
ANSWER = 1024
"""The largest number of new tokens in an answer of `chat`, if neither the call nor the folder has a limit."""
RETURNED = ("return_dict_in_generate", "output_scores", "output_logits")
"""Settings of what a call returns."""


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def with_settings(*, without: tuple[str, ...] = (), **defaults: object) -> Callable[[Command], Command]:
    """Add an option for each setting to a command, which gets those that are given in its `**settings`, the others as None.

    defaults: what the command uses if neither the call nor the folder has a setting, where that is not the setting's default.
    """

    def decorate(command: Command) -> Command:
        own = [each for each in signature(command).parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
        options = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=option(name, defaults.get(name)))
            for name in GenerationSpec.model_fields
            if name not in (*RETURNED, *without)
        ]
        command.__signature__ = Signature([*own, *options])  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in (*own, *options)} | {"return": None}
        return command

    return decorate


def option(name: str, default: object) -> Any:
    """The type of a setting's option, with its help."""
    kinds = set(types_in(GenerationSpec.model_fields[name].annotation))
    plain: Any = next((kind for kind in (bool, int, float) if kinds == {kind}), str)
    words = flag(name)
    if plain is bool:
        return Annotated[bool | None, typer.Option(f"{words}/--no-{words[2:]}", help=described(name, default))]
    if str in kinds and kinds <= {str, tuple}:
        return Annotated[list[str] | None, typer.Option(words, help=described(name, default, "Repeatable."))]
    metavar = "JSON" if plain is str else None
    return Annotated[plain | None, typer.Option(words, metavar=metavar, help=described(name, default))]


def types_in(annotation: Any) -> Iterator[Any]:
    """The types that a value may have, without None and what restricts them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from types_in(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for each in get_args(annotation):
            yield from types_in(each)
    elif annotation is not type(None):
        yield origin or annotation


def described(name: str, default: object, more: str = "") -> str:
    """A setting's description, with the names of other settings as options, and its default."""
    field = GenerationSpec.model_fields[name]
    known = GenerationSpec.model_fields
    text = re.sub(r"`(\w+)`", lambda found: flag(found[1]) if found[1] in known else found[0], field.description or "")
    if default is None and "Default:" in text:
        return text
    default = field.default if default is None else default
    text = " ".join(filter(None, (text.partition(" Default:")[0], more)))
    return f"{text}  [default: the folder's{'' if default is None else f', else {json.dumps(default)}'}]"


def parsed(settings: Mapping[str, Any]) -> GenerationSpec:
    """The settings that are given, validated. Invalid ones are wrong usage."""
    document = {name: value_of(value) for name, value in settings.items() if value not in (None, [], ())}
    try:
        return GenerationSpec.from_document(document)
    except SpecError as error:
        problem = error.problems[0]
        name = re.split(r"[.\[]", problem.where)[0]
        message = str(Problem("", problem.found, problem.expected, problem.remedy))
        raise typer.BadParameter(message, param_hint=flag(name)) from None


def value_of(value: Any) -> Any:
    """The value of an option: JSON, or a text if it is none."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def check_sampling(given: GenerationSpec, seed: int | None, do_sample: bool) -> None:
    """Options of sampling are wrong usage for greedy decoding, which would ignore them."""
    from pairform.assemblies.generation.options import OF_SAMPLING

    unused = [name for name in OF_SAMPLING if name in given.model_fields_set] + ([] if seed is None else ["seed"])
    if unused and not do_sample:
        raise typer.BadParameter(f"found {', '.join(map(flag, unused))} alone, expected --do-sample beside it")
