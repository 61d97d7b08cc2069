"""The laboratory: recipes, a testbed and benchmarks. It uses the library and is not part of it."""
