"""Backbones: verified weights and frozen encoders; decoders on their dense maps."""
