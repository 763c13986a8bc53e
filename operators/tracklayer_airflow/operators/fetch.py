"""The step that brings one source into the store."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tracklayer.settings import settings
from tracklayer.spec import OFFLINE
from tracklayer_airflow.operators.step import StepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tracklayer.tracking import RunRecord


class FetchOperator(StepOperator):
    """Fetches the source named ``item``; a new revision of it is an event of its asset."""

    def perform(self, context: Context, record: RunRecord) -> dict[str, Any]:  # noqa: ARG002
        from tracklayer.sources import fetch
        from tracklayer.store import open_store
        from tracklayer_airflow.credentials import credential

        assert self.item is not None
        source = self.spec.sources[self.item]
        fetched = fetch(
            source.uri,
            project=self.project_folder(context),
            store=open_store(),
            on_progress=self.line_logger(),
            credential=partial(credential, connection=source.connection),
            offline=settings().offline or bool((context["dag_run"].conf or {}).get(OFFLINE)),
            allow=frozenset(source.allow),
            scratch=self.private(context, "fetch").parent,
        )
        self.hold(context, fetched.manifest)
        manifest = fetched.manifest
        self.log.info(
            "%s at %s: %d files, %d bytes, %s",
            fetched.handle,
            fetched.revision,
            len(manifest.files),
            manifest.size,
            "in the store already" if fetched.cached else "fetched",
        )
        if self.outlets:
            self._tell_who_waits(context, manifest.digest)
        return {
            "source": self.item,
            "handle": fetched.handle,
            "revision": fetched.revision,
            "manifest": manifest.digest,
            "cached": fetched.cached,
            "allowed": sorted(source.allow),
            "files": [
                {
                    "path": file.path,
                    "size": file.size,
                    "digest": file.digest,
                    "format": fetched.formats[file.path],
                }
                for file in manifest.files
            ],
        }

    def _tell_who_waits(self, context: Context, digest: str) -> None:
        """Add an event to the source's asset if the content is other than at the last event."""
        changed, alias = self.inlets[0], self.outlets[0]
        events = context["inlet_events"][changed]
        last = (events[-1].extra or {}).get("digest") if len(events) else None
        if last != digest:
            context["outlet_events"][alias].add(changed, extra={"digest": digest})
