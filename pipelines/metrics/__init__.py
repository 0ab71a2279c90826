"""How well a model separates, and how far its probabilities can be trusted: discrimination, calibration, intervals, saliency."""
