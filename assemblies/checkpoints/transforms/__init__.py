"""Other forms of a loaded model's weights: 8-bit integers, or packed for oneDNN's matrix products."""
