"""DREAM: a reconstructive and a discriminative network, trained on good panels alone."""
