"""The former home of `hearken.feedback.analysis`."""

from hearken.feedback.analysis import *  # noqa: F403
from hearken.feedback.analysis import compare_policies as contest  # noqa: F401
