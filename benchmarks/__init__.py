"""What aserpc costs, measured beside others in one run: ``python -m benchmarks``.

Parts of it run in the environments of other packages, so that importing this imports nothing.
"""
