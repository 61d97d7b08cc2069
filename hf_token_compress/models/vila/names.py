"""Names in configurations that tell checkpoints apart."""

MODEL_TYPE = "vila15"
ORIGINAL_MODEL_TYPE = "llava_llama"
"""The model type of the published VILA1.5 checkpoints, and of some other models."""
PROJECTOR_TYPE = "mlp_downsample"
