"""LLaVA that learns who and what is in your own pictures, and proves what it learned and what it forgot."""

__version__ = "2.0.0"
