"""What is measured on a panel, from its points alone."""
