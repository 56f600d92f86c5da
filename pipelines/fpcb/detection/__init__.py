"""The detectors: what they see, what they remember, and what they call NG."""
