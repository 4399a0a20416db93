"""A world of short messages: what a chat model writes when it is asked for a note to somebody."""
