"""The estimators' way to Ray."""
