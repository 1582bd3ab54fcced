"""Fetching the archives of open benchmarks, and unpacking them safely."""
