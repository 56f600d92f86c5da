"""Long-lived workers: a pure engine beside a thin actor."""
