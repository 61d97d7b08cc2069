"""One file for each family, named after its `model_type`, with a class `Family`.

Files that begin with an underscore hold what several families share.
"""
