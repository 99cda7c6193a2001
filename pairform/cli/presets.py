"""The command that lists the architectures that come with pairform: `presets`."""

from typing import Any

from pairform.cli.options import Json, print_json


def presets(as_json: Json = False) -> None:
    """List the architectures that come with pairform."""
    from pairform.registry.preset_sizes import preset_sizes

    found = preset_sizes()
    if as_json:
        print_json(found)
        return
    table = [("preset", "parameters", "encoder", "decoder"), *(cells(name, size) for name, size in found.items())]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, parameters, *stacks in table:
        row = [name.ljust(widths[0]), parameters.rjust(widths[1])]
        row += [cell.ljust(width) for cell, width in zip(stacks, widths[2:], strict=True)]
        print("  ".join(row).rstrip())
    print("\nOf a stack: layers x width.")


def cells(name: str, size: dict[str, Any]) -> tuple[str, ...]:
    stacks = (f"{size[part]['depth']:>2} x {size[part]['width']}" if part in size else "" for part in ("encoder", "decoder"))
    return name, f"{size['parameters']:,}", *stacks
