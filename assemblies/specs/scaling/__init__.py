"""Models scaled to another width and depth, with their proportions kept."""
