"""Changes at random: of JSON documents, of bytes, of files in a folder."""

import copy
import json
import os
from collections.abc import Iterator, MutableMapping, MutableSequence
from pathlib import Path
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, 10**40, 0.0, -0.5, 0.5, 1e-320, 1e308, float("nan"), float("-inf")),
    *(
        "",
        " ",
        "x",
        "0",
        "nothing",
        "../..",
        "/dev/zero",
        "/etc/passwd",
        "a\x00b",
        "\x1b[2J\x1b]0;x\x07",
        "\u202etxt",
        "\ud800",
    ),
    *("é" * 50, "x" * 200_000, "cpu", "cuda:99", "float128", "true", "rmsnorm", "gemma-2-2b", "t5gemma-2b-2b#encoder"),
    *([], {}, [[]], [None], [1] * 20_000, ["a", 1], {"": {}}, {"name": None}, {"name": "nothing"}, {"name": ["x"]}),
    *({"extends": "gemma-2-2b"}, {"extends": "spec.json"}, {"extends": "/dev/zero"}, {"extends": ["x"]}, {"extends": "pipe"}),
    *({"name": "rope", "theta": -1}, {"name": "layernorm"}, {"name": "self_attention"}, {"causal": "yes"}, {"\x1b[31m": 1}),
)
NAMES = ("", "name", "extends", "depth", "widht", "layers", "\x1b[2J", "a\nb", "\ud800", "x" * 5000, "__class__", "$schema")


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a document."""
    if isinstance(document, MutableMapping | MutableSequence):
        pairs = document.items() if isinstance(document, MutableMapping) else enumerate(document)
        for key, value in list(pairs):
            yield document, key
            yield from places(value)


def mutated(document: Any, random: Random, changes: int) -> Any:
    """A copy of a JSON document with values replaced, removed, moved, renamed or nested."""
    changed = copy.deepcopy(document)
    for _ in range(changes):
        found = list(places(changed))
        if not found:
            break
        holder, key = random.choice(found)
        match random.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[random.choice(NAMES)] = holder.pop(key)
            case 2 if isinstance(holder, dict):
                holder[random.choice(NAMES)] = copy.deepcopy(random.choice(VALUES))
            case 3:
                other, name = random.choice(found)
                holder[key] = copy.deepcopy(other[name]) if name in range_of(other) else None
            case 4:
                holder[key] = nested(holder[key], random.choice((1, 3, 70, 500)), random)
            case 5 if isinstance(holder[key], int | float):
                holder[key] = holder[key] * random.choice((-1, 0, 3, 0.5, 10**6, 10**12))
            case _:
                holder[key] = copy.deepcopy(random.choice(VALUES))
    return changed


def range_of(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else range(len(holder))


def nested(value: Any, levels: int, random: Random) -> Any:
    for _ in range(levels):
        value = [value] if random.random() < 0.5 else {"layer": value}
    return value


def as_text(document: Any, random: Random) -> bytes:
    """A document as JSON; now and then as what is nearly JSON."""
    text = json.dumps(document)
    match random.randrange(12):
        case 0:
            text = text[: random.randrange(len(text) + 1)]
        case 1:
            text = text.replace(":", ": " + text[:40] + ",", 1)
        case 2:
            text = text.replace("1", "9" * random.choice((30, 6000)), 1)
        case 3:
            return damaged(text.encode(), random)
        case 4:
            text = text.replace("{", '{"depth": 1, "depth": 2, ', 1)
    return text.encode("utf-8", "surrogatepass")


def damaged(content: bytes, random: Random) -> bytes:
    """Bytes changed, cut out, repeated or put in."""
    some = bytearray(content)
    for _ in range(random.choice((1, 1, 4, 50))):
        at = random.randrange(len(some) + 1)
        match random.randrange(4):
            case 0 if at < len(some):
                some[at] = random.randrange(256)
            case 1:
                del some[at : at + random.choice((1, 8, 500))]
            case 2:
                some[at:at] = some[: random.choice((1, 100))]
            case _:
                some[at:at] = random.randbytes(random.choice((1, 8, 100)))
    return bytes(some)


def damage_folder(folder: Path, random: Random) -> str:
    """Change one file of a folder, or what stands under its name; says what was done."""
    file = random.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    act = random.randrange(9)
    if file.suffix == ".json" and act < 5:
        document = mutated(json.loads(file.read_text()), random, random.choice((1, 1, 1, 3)))
        file.write_bytes(as_text(document, random))
        return f"{file.name}: fields changed"
    if file.suffix == ".safetensors" and act < 5:
        return f"{file.name}: {change_header(file, random)}"
    content = file.read_bytes()
    file.unlink()
    match act:
        case 5:
            return f"{file.name} gone"
        case 6:
            os.mkfifo(file)
            return f"{file.name} a named pipe"
        case 7:
            file.symlink_to(random.choice(("/dev/zero", "/dev/null", "/proc/self/mem", file.name, "nowhere", ".")))
            return f"{file.name} a link to {file.readlink()}"
        case 8:
            file.mkdir()
            return f"{file.name} a folder"
        case _:
            file.write_bytes(damaged(content, random))
            return f"{file.name} damaged"


def change_header(file: Path, random: Random) -> str:
    """Change the JSON header of a safetensors file, or its length."""
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    name = random.choice([key for key in header if key != "__metadata__"])
    match random.randrange(8):
        case 0:
            header[name]["dtype"] = random.choice(("F64", "F16", "BF16", "I8", "F8_E4M3", "X", None, 5))
            done = "dtype"
        case 1:
            header[name]["shape"] = random.choice(([], [0], [-1], [2**40, 2**40], [1, *header[name]["shape"]], "x", [1.5]))
            done = "shape"
        case 2:
            header[name]["data_offsets"] = random.choice(([0, 0], [5, 2], [-4, 0], [0, 2**62], [0], "x", None))
            done = "offsets"
        case 3:
            header[random.choice((*NAMES, name + "x"))] = header.pop(name)
            done = "name"
        case 4:
            del header[name]
            done = "one tensor less"
        case 5:
            text = json.dumps(header)
            text = text.replace("{", "{" + json.dumps(name) + ": " + json.dumps(header[name]) + ", ", 1)
            file.write_bytes(len(text).to_bytes(8, "little") + text.encode() + data)
            return "a key twice"
        case 6:
            file.write_bytes(random.choice((0, 1, 2**31, 2**63, length + 1, length - 1)).to_bytes(8, "little") + raw[8:])
            return "header length"
        case _:
            header = mutated(header, random, 1)
            done = "header changed"
    text = json.dumps(header)
    file.write_bytes(len(text).to_bytes(8, "little") + text.encode() + data)
    return done
