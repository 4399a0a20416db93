"""A world whose labelers go by the environment's own reward, which the reward model is not told."""
