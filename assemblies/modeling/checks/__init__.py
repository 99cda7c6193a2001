"""Checks of the arguments of `forward` and `generate`, made once a call before anything is computed."""
