"""Training of the testbed's projector and adapter."""
