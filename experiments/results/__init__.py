"""A study's folder, and statistics of what its trials measured."""
