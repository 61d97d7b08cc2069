"""Every scorer on every small model, by one protocol, and the table of the documentation."""
