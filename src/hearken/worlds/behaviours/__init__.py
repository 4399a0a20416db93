"""Worlds whose labelers want to see one behaviour of a robot, for which its environment holds no reward."""
