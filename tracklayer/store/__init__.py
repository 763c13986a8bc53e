"""Content-addressed artifacts: what was fetched or made, named by its digest, encrypted."""

from tracklayer.store.draft import Draft
from tracklayer.store.keys import Keys, keys_of
from tracklayer.store.manifest import Blob, File, Manifest, hash_file, scan
from tracklayer.store.store import Ref, Store, open_store
from tracklayer.store.writer import Writer

__all__ = [
    "Blob",
    "Draft",
    "File",
    "Keys",
    "Manifest",
    "Ref",
    "Store",
    "Writer",
    "hash_file",
    "keys_of",
    "open_store",
    "scan",
]
