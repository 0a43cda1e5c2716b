"""Serve ASE calculators."""
