"""Detections for images, files and videos, with a trained model."""
