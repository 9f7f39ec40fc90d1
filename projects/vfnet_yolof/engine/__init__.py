"""Training and evaluation: one engine for LazyConfig and yacs configs."""
