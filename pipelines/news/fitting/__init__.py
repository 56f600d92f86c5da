"""The grid of folds, alphas and targets: planned, solved, chosen from, judged."""
