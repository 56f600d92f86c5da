"""The two jobs as recipes, and the command line."""
