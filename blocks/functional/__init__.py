"""Functions that several blocks share: linear products, dtypes of intermediate results, initial distributions."""
