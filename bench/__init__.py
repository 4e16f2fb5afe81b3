"""Benchmarks: `./tollgate bench NAME` runs the module of that name."""
