"""Images of named objects for the testbed, and questions in natural words about them."""
