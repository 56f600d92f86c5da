"""Evaluation: how good detectors are, where to draw the line, and what they must beat."""
