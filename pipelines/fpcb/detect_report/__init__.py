"""The report of a run: what was found, missed, and called NG wrongly."""
