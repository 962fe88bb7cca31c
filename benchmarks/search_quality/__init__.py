"""How good searches are, replayed on recorded learning curves: `python -m benchmarks.search_quality --help`."""
