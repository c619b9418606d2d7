"""Pages: what figures, tables and HTML of gpumlp's reports have in common."""
