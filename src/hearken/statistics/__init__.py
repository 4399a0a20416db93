"""Statistics of what was measured: intervals, win rates, rank agreement, diversity, best-of-n. numpy and scipy only."""
