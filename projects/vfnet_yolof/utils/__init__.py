"""Files, processes, random numbers and names: what every other room may use."""

__version__ = "0.2.0"  # of the package; here, where every room can read it
