"""COCO 2017 as RetinaNet's baselines are trained on it: 1333 x 800, flips; B, G, R."""

from .coco import dataloader

dataloader.train.mapper.image_format = "BGR"
dataloader.train.mapper.interpolation = "pil"
