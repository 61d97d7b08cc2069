"""PEFT adapters and Accelerate hooks on a compressed model."""
