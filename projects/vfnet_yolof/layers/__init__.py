"""Building blocks that know no detector."""
