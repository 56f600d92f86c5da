"""Panel bundles, as the tracker in the field writes them."""
