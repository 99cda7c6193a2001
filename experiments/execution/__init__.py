"""Execution of trials: local processes, cluster jobs, and a record of the environment."""
