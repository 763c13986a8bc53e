"""DEEPaaS, version 2: what its clients and dashboards ask of a model.

The paths end in a slash, where those of the Open Inference Protocol have none. A prediction takes
the inputs by their names, as nested arrays. References are relative: the server may be behind a
prefix.

Source: ``deepaas/api/v2`` of https://github.com/ai4os/DEEPaaS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracklayer.serving.documents import object_of
from tracklayer.serving.http import Headers, Reply, Route, Service, json_reply
from tracklayer.serving.invocations import feeds_of, predictions
from tracklayer.serving.model import Call, RequestError


def routes(service: Service, peers: Sequence[Service] = ()) -> dict[str, Route]:
    """Path -> what it answers, for one service.

    :param peers: all services of its server; default: there is no other.
    """

    def predict(body: bytes, headers: Headers, call: Call) -> Reply:
        try:
            return _predict(service, body, headers, call)
        except RequestError as refused:
            # DEEPaaS's own word for it, beside that of all our answers.
            document = {"message": refused.message, "error": refused.message}
            return json_reply(document, refused.status)._replace(headers=refused.headers)

    def model() -> Reply:
        return json_reply(_metadata(service, "./"))

    def models() -> Reply:
        by_name: dict[str, Service] = {}
        for peer in peers or (service,):
            by_name.setdefault(peer.name, peer)
        listed = [_metadata(peer, f"{name}/") for name, peer in by_name.items()]
        return json_reply({"models": listed})

    def version() -> Reply:
        return json_reply({"version": "stable", "id": "v2", "links": [_link("./")]})

    base = f"/v2/models/{service.name}/"
    return {
        "/v2/": Route(get=version),
        "/v2/models/": Route(get=models),
        base: Route(get=model),
        f"{base}predict/": Route(infer=predict),
    }


def _predict(service: Service, body: bytes, headers: Headers, call: Call) -> Reply:
    media = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if media != b"application/json":
        raise RequestError(415, "content-type: predictions are asked for in application/json")
    signature = service.model.signature
    feeds = feeds_of(signature, object_of(body))
    signature.check(feeds)
    results = service.model.run(feeds, signature.output_names, call)
    return json_reply({"status": "OK", "predictions": predictions(signature, results)})


def _metadata(service: Service, reference: str) -> dict[str, Any]:
    signature = service.model.signature
    takes = ", ".join(f"{t.name} {t.datatype} {t.shape}" for t in signature.inputs)
    gives = ", ".join(f"{t.name} {t.datatype} {t.shape}" for t in signature.outputs)
    return {
        "id": service.name,
        "name": service.name,
        "version": service.version,
        "description": f"{service.model.platform}; takes {takes}; gives {gives}",
        "links": [_link(reference)],
    }


def _link(reference: str) -> dict[str, str]:
    return {"rel": "self", "type": "application/json", "href": reference}
