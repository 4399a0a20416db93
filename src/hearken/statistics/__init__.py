"""Statistics of judgments and of what was measured: strengths, agreement, labelers, intervals. numpy and scipy only."""
