"""Configurations, LazyConfig and yacs: found, read, changed, checked and scaled."""
