"""The sparse Lasso solver: one certified problem, several engines, one actor."""
