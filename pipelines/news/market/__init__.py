"""From documents and prices to the rows that are fitted."""
