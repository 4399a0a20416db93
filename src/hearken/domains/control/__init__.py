"""Control: a policy acts in a Gymnasium environment, a response is a clip of what it did (Christiano et al. 2017)."""
