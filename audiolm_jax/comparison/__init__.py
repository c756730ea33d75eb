"""Arms, budget matching, seeds, statistics, the HTML report."""
