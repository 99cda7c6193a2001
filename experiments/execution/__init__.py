"""Running a study's trials: processes, clusters, the environment they ran in."""
