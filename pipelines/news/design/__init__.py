"""From texts to the design matrix."""
