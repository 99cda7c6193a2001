"""The examples at the end of each command's help; a test runs them in this order."""

EXAMPLES = {
    "presets": ["pairform presets"],
    "blocks": ["pairform blocks norm", "pairform blocks norm rmsnorm"],
    "show": ["pairform show t5gemma-2b-2b", "pairform show t5gemma-2b-2b --set decoder.depth=12 --json"],
    "diff": ["pairform diff gemma-2-2b gemma-2-9b"],
    "schema": ["pairform schema --out pairform.schema.json"],
    "inspect": ["pairform inspect t5gemma-9b-2b --source-length 1024"],
    "plan": ["pairform plan --encoder gemma-large --decoder gemma-small"],
    "convert": ["pairform convert --encoder gemma-large --decoder gemma-small --out pair"],
    "verify": ["pairform verify pair"],
    "export": ["pairform export pair --out pair-transformers"],
    "extract": ["pairform extract pair --part encoder --out encoder"],
    "generate": ['pairform generate pair --text "the quick brown fox"', 'pairform generate pair --ids "5 17 3"'],
    "carry": ["pairform carry pair --set decoder.layer.branches.feed_forward.name=mlp --out pair-mlp"],
}


def examples(command: str) -> str:
    """As an epilog; after a backspace, lines are kept as they are."""
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in EXAMPLES[command])])
