"""Column blocks on Ray."""
