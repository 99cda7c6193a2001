"""A study file, its variants, and the trials planned from it."""
