"""Model classes, and text models other than the usual ones."""
