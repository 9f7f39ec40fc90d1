"""The name that configurations saved by release 0.1 have for ATSS among several anchors."""

from .atss import ATSSAssigner

AnchorATSSAssigner = ATSSAssigner
