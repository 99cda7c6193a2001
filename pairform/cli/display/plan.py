"""Display of a plan: a summary, or one row per tensor."""

from itertools import groupby
from typing import TYPE_CHECKING

from pairform.cli.display.printing import Sheet, print_totals, print_wide
from pairform.registry import printable, shorten

if TYPE_CHECKING:
    from pairform.assemblies.initialisation.plan import Plan
    from pairform.assemblies.initialisation.plan_summary import Group


def print_plan(plan: "Plan", *, rows: bool = False) -> None:
    from pairform.assemblies.initialisation.plan_summary import size_in_bytes

    if rows:
        print_rows(plan)
    else:
        print_groups(plan)
    for role, change in plan.vocabularies.items():
        print(f"\nvocabulary of the {role}: {len(change.rows):,} tokens, {change.summary}")
    if plan.edits:
        print("\nchanges to the spec")
        for edit in plan.edits:
            before, after = ("absent" if value is None else shorten(value, 200) for value in (edit.before, edit.after))
            print(printable(f"  {edit.path}: {before} -> {after}"))
    print(f"\nto be written: {size_in_bytes(plan):,} bytes of weights")
    print_totals(plan)
    for note in plan.notes:
        print(printable(f"note: {note}"))


def print_groups(plan: "Plan") -> None:
    """A heading for each stack, a line for each part and operation, and its origin if that is another part."""
    from pairform.assemblies.initialisation.plan_summary import dropped, groups, sources_of

    made, left = sorted(groups(plan), key=lambda group: ORDER.get(group.stack, len(ORDER))), dropped(plan)
    widths = [max(len(cell) for cell in column) for column in zip(*map(cells, made + left), strict=True)]
    line = f"  {{:{widths[0]}}}  {{:>{max(widths[1], 7)}}}  {{:>{max(widths[2], 10)}}}  {{}}"
    print(line.format("", "tensors", "parameters", "operation"))
    for stack, alike in groupby(made, lambda group: group.stack):
        folders = " and ".join(sources_of(plan, stack))
        print(printable(f"{stack}, from {folders}" if folders else stack))
        for group in alike:
            print(line.format(*cells(group), group.operation))
            if group.origin:
                print(printable(f"      from {group.origin}"))
            elif group.operation != "copy":
                print(printable(f"      e.g. {group.tensors[0].partition('.')[2]}"))
    for (role, reason), alike in groupby(left, lambda group: (group.stack, group.operation)):
        print(printable(f"dropped from the {'model' if role == 'model' else f'source of the {role}'}: {reason}"))
        for group in alike:
            print(line.format(*cells(group), "").rstrip())


ORDER = {stack: place for place, stack in enumerate(("encoder", "bridge", "decoder", "head"))}


def cells(group: "Group") -> tuple[str, str, str]:
    return printable(group.part), f"{len(group.tensors):,}", f"{group.parameters:,}"


def print_rows(plan: "Plan") -> None:
    table = Sheet("tensor", "source", "operation", "shape", "dtype")
    for row in plan.targets:
        shape = " x ".join(map(str, row.shape))
        table.add_row(row.target, str(row.source or ""), row.operation.summary, shape, row.dtype)
    for origin in plan.origins:
        if origin.dropped is not None:
            shape = " x ".join(map(str, origin.shape))
            table.add_row("", str(origin.source), f"dropped: {origin.dropped}", shape, "", style="dim")
    print_wide(table)
