"""Report: one training as one page."""
