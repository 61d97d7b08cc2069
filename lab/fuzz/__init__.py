"""Random prompts and settings, checked against the stock model: `python -m lab.fuzz`."""
