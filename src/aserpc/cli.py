"""Command line (placeholder until the loops exist)."""
