"""From images and text to a model's inputs."""
