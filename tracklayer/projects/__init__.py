"""All projects of a platform: one git repository, a folder a project.

Saving a project is a commit. The repository may be a bare one on this machine or any remote that
``git`` can reach.
"""

from tracklayer.projects.check import check_repository
from tracklayer.projects.repository import Commit, Repository, Saved

__all__ = ["Commit", "Repository", "Saved", "check_repository"]
