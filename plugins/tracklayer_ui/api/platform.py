"""What the platform is and where its parts are."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter
from pydantic import BaseModel

from tracklayer.settings import settings

router = APIRouter()


class Description(BaseModel):
    """The platform's version and the addresses of its parts."""

    version: str
    airflow: str
    mlflow: str
    gateway: str


@router.get("/platform")
def describe() -> Description:
    """The platform's version and addresses."""
    found = settings()
    return Description(
        version=version("tracklayer"),
        airflow=found.airflow_url,
        mlflow=found.mlflow_url,
        gateway=found.gateway_url,
    )
