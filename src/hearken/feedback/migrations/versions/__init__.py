"""One file per version of the feedback database, in order."""
