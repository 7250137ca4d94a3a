"""Questions to answers, answers to figures, figures to a report."""
