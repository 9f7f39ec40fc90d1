"""Pictures of what a detector found."""
