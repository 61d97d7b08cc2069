"""Names in configurations by which checkpoints are told apart."""

MODEL_TYPE = "vila15"
ORIGINAL_MODEL_TYPE = "llava_llama"
"""That of the published VILA1.5 checkpoints, and of some that are no VILA."""
PROJECTOR_TYPE = "mlp_downsample"
