"""The tale world: short tales in plain English, asked for by prompts and judged by two groups of taste."""
