"""Who may ask the models: the callers' keys, and how often each may ask."""

from tracklayer.access.admission import Admission, Refusal, carries_key
from tracklayer.access.keys import ANONYMOUS, PLATFORM, PREFIX, Key, Keys, Project

__all__ = [
    "ANONYMOUS",
    "PLATFORM",
    "PREFIX",
    "Admission",
    "Key",
    "Keys",
    "Project",
    "Refusal",
    "carries_key",
]
