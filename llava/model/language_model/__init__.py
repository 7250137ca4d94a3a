"""The original's folder of language models, kept for imports; there is one class for all of them."""
