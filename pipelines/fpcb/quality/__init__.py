"""The report of a data set: is it sound, and what does it look like."""
