"""The mathematics of every loss and estimator: pure functions on tensors. Imports torch and nothing else.

Shapes: B prompts, K responses to one prompt, R responses, T response tokens (right-padded, with a mask), A attributes.
Losses come back unreduced; `reduce` turns them into scalars. Scores and log-probabilities should be float32 or wider.
"""
