"""Where arrays live and who computes: one protocol, several backends, chosen at run time."""
