"""Checkpoints of a run, from which it resumes on any number of processes."""

from pairform.training.checkpoints.checkpoint import load_checkpoint as load_checkpoint
from pairform.training.checkpoints.checkpoint import load_weights as load_weights
from pairform.training.checkpoints.checkpoint import resume_step as resume_step
from pairform.training.checkpoints.checkpoint import save_checkpoint as save_checkpoint
from pairform.training.checkpoints.folders import latest as latest
from pairform.training.checkpoints.folders import prune as prune
