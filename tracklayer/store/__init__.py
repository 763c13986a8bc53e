"""Content-addressed artifacts: what was fetched or made, named by its digest."""

from tracklayer.store.manifest import Blob, File, Manifest, hash_file, scan
from tracklayer.store.store import Store

__all__ = ["Blob", "File", "Manifest", "Store", "hash_file", "scan"]
