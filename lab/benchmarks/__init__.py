"""The measurements behind the tables of the documentation; each module is a command."""
