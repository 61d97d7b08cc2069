"""Pictures of named things for the testbed, and questions in natural words about them."""
