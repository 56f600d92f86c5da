"""Files of news and prices to clean tables."""
