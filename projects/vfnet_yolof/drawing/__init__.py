"""Images of what a detector found."""
