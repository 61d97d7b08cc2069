"""How the testbed's projector and adapter were trained."""
