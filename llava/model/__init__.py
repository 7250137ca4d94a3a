"""The model: vision tower, projector, language model, and the checkpoints they live in."""
