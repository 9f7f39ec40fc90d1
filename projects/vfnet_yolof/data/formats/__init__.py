"""Readers of annotation formats, one module for each kind of file; :mod:`..layouts` picks one."""
