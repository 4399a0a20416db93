"""Labelers that are not people, behind one interface."""
