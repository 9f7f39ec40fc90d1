"""A toy detector with a mistake in its code."""

from engine_toy import ToyDetector


class Failing(ToyDetector):
    """The mistake shows in the third training step."""

    def forward(self, batch):
        losses = super().forward(batch)
        return losses if self.calls < 3 else losses + 1
