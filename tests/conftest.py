"""Quiet libraries and one thread a process: the models are tiny, and pytest-xdist brings the parallelism."""

import torch
import transformers

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
