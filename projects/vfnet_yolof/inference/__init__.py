"""Detections for pictures, files and videos, with a trained model."""
