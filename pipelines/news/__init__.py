"""News texts and prices to a sentiment dictionary."""
