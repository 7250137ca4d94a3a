"""From conversations and pictures to trained weights."""
