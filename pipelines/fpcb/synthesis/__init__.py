"""Synthetic panels: what is drawn, how a board bends, what the camera makes of it."""
