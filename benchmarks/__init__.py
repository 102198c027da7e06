"""aioetcd2 beside its peers, in one run: `python -m benchmarks`; README.md says how it is done."""
