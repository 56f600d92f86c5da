"""Side-by-side measurements, one command a table."""
