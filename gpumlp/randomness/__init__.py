"""Which bits: one specification of randomness, counter-based, the same on every backend."""
