"""Tables and progress bars of the command line."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from pairform.registry.errors import printable

if TYPE_CHECKING:
    from pairform.assemblies.analysis.inspection import Inspection
    from pairform.assemblies.initialisation.plan import Plan

console = Console(highlight=False, markup=False)


class Sheet(Table):
    """A table that escapes unprintable characters: names and values may be untrusted."""

    def __init__(self, *headers: str, **options: Any) -> None:
        super().__init__(*map(printable, headers), box=None, padding=(0, 2, 0, 0), **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in cells), **options)


class Outline(Tree):
    """A tree that escapes unprintable characters."""

    def __init__(self, label: str | Text) -> None:
        super().__init__(printable(label) if isinstance(label, str) else label)

    def add(self, label: Any, **_: Any) -> "Outline":
        node = Outline(label)
        self.children.append(node)
        return node


def block_rows(registry: Mapping[str, Any]) -> dict[str, Any]:
    """Summary and fields of each block, or the error of a plugin that cannot be imported."""
    from pairform.registry import PairformError

    rows: dict[str, Any] = {}
    for name in registry:
        try:
            block = registry[name]
        except PairformError as error:
            rows[name] = {"error": str(error)}
            continue
        fields = [field for field in block.Spec.model_fields if field != "name"]
        summary = inspect.getdoc(block) or ""
        rows[name] = {"summary": summary.partition("\n\n")[0].replace("\n", " "), "fields": fields}
    return rows


def print_blocks(registries: Mapping[str, Any]) -> None:
    for kind, registry in registries.items():
        table = Sheet(title=f"{kind}: {registry.summary}", title_justify="left")
        table.add_column("name", style="bold")
        table.add_column("fields")
        table.add_column("description")
        for name, row in block_rows(registry).items():
            table.add_row(name, ", ".join(row.get("fields", [])), row.get("summary") or row.get("error"))
        console.print(table)
        console.print()


def print_diff(old: str, new: str, found: Mapping[str, tuple[Any, Any]]) -> None:
    if not found:
        console.print("no difference")
        return
    table = Sheet("path", old, new)
    for path, (before, after) in found.items():
        table.add_row(path, *("" if value is None else str(value) for value in (before, after)))
    print_wide(table)


def print_inspection(title: str, found: "Inspection") -> None:
    table = Sheet()
    table.add_column("part")
    for column in ("parameters", "share", "GFLOPs"):
        table.add_column(column, justify="right")
    for name, parameters, share, gflops in found.rows:
        table.add_row(name, f"{parameters:,}", f"{share:.1f} %", f"{gflops:,.1f}")
    console.print(printable(f"{title} ({found.title})"), style="italic")
    console.print(table)
    console.print()
    numbers = ", ".join(f"{name} {count:,}" for name, count in found.parameters.items() if count)
    print(f"parameters: {numbers}")
    cache = found.cache_bytes
    print(f"cache ({found.dtype}): self {cache['self']:,} bytes, source {cache['source']:,} bytes")


def print_wide(table: Table) -> None:
    """Print rows unwrapped, even if the terminal is narrower or the output is not a terminal."""
    wide = Console(highlight=False, markup=False, width=10_000)
    wide.width = wide.measure(table).maximum
    wide.print(table, no_wrap=True, crop=False)


def print_totals(plan: "Plan") -> None:
    print(
        ", ".join(
            f"{kind} {total['tensors']:,} tensors ({total['parameters']:,} parameters)"
            for kind, total in plan.totals.items()
            if total["tensors"]
        )
    )


@contextlib.contextmanager
def byte_progress(*, shown: bool = True) -> Iterator[Callable[[int, int], object]]:
    """A progress bar in bytes on standard error, from the first byte on, if that is a terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    errors = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(binary_units=False), TransferSpeedColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=errors, disable=not (shown and errors.is_terminal))

    def move(moved: int, whole: int) -> None:
        if not progress.tasks:
            progress.add_task("bytes", total=whole)
            progress.start()
        progress.update(progress.tasks[0].id, advance=moved)

    try:
        yield move
    finally:
        if progress.tasks:
            progress.stop()


@contextlib.contextmanager
def count_progress(what: str, whole: int) -> Iterator[Callable[[int], object]]:
    """A progress bar of things done on standard error, if that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    errors = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as progress:
        task = progress.add_task(what, total=whole)
        yield lambda count: progress.update(task, advance=count)
