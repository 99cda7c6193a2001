"""Written forms of masks, as numbers to add to scores."""

from typing import Any

from pairform.assemblies.eject.source import Source

LOWEST = '''def NAME(allowed: Tensor) -> Tensor:
    """0 where a query may attend, else the lowest number, with which a query without any key attends to all equally."""
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill(~allowed, torch.finfo(torch.float32).min)
'''
CAUSAL = '''def NAME(valid: Tensor, length: int) -> Tensor:
    """The mask of the last `length` of L tokens, which attend to earlier ones: [B, 1, T, L]."""
    total = valid.shape[1]
    queries = torch.arange(total - length, total, device=valid.device)[:, None]
    keys = torch.arange(total, device=valid.device)
    return additive((keys <= queries) & valid[:, None, None, :])
'''
CAUSAL_WINDOW = '''def NAME(valid: Tensor, length: int, before: int) -> Tensor:
    """The mask of the last `length` tokens, which attend to `before` tokens before them, over those keys: [B, 1, T, L]."""
    total = valid.shape[1]
    first = max(total - length - before, 0)
    queries = torch.arange(total - length, total, device=valid.device)[:, None]
    keys = torch.arange(first, total, device=valid.device)
    return additive((keys <= queries) & (keys >= queries - before) & valid[:, None, None, first:])
'''
FULL = '''def NAME(valid: Tensor) -> Tensor:
    """The mask of queries that attend to all tokens but padding: [B, 1, 1, L]."""
    return additive(valid[:, None, None, :])
'''
WINDOW = '''def NAME(valid: Tensor, before: int, after: int) -> Tensor:
    """The mask of tokens that attend to `before` tokens before them and `after` tokens after them: [B, 1, T, T]."""
    places = torch.arange(valid.shape[1], device=valid.device)
    near = (places >= places[:, None] - before) & (places <= places[:, None] + after)
    return additive(near & valid[:, None, None, :])
'''


def own_mask(source: Source, mask: Any, where: str, owner: str) -> str:
    """The expression of the mask of tokens over their own sequence."""
    source.only(mask, where, "causal", "window")
    source.define("additive", LOWEST)
    if not mask.causal:
        if owner == "Decoder":
            source.refuse(f"{where}.causal", False, "true in a decoder")
        if mask.window is None:
            return full_mask(source, "valid")
        return f"{source.define('window_mask', WINDOW)}(valid, {mask.window[0]}, {mask.window[1]})"
    if mask.window is None:
        return f"{source.define('causal_mask', CAUSAL)}(valid, length)"
    return f"{source.define('causal_window_mask', CAUSAL_WINDOW)}(valid, length, {mask.window[0]})"


def full_mask(source: Source, valid: str) -> str:
    source.define("additive", LOWEST)
    return f"{source.define('full_mask', FULL)}({valid})"
