"""Adaptation: a model trained by a recipe, in a folder from which the run resumes."""
