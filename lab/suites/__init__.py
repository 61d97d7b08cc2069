"""Transformers' own tests on compressed models: `python -m lab.suites CHECKOUT`."""
