"""Images of named objects for the testbed, and questions about them in plain English."""
