"""A client of an S3 store, and what its errors mean for a person."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tracklayer.errors import SourceError
from tracklayer.sources import Credential
from tracklayer.sources.addresses import split

_WHOSE = (
    "The keys are those of the Airflow connection of the source, else what AWS_ACCESS_KEY_ID, "
    "AWS_PROFILE or this machine's role give; without any, a bucket must be public."
)
_ELSEWHERE = "Name the bucket's region: s3://bucket/folder/?region=<region>."
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html: code -> what it means, advice
_MEANINGS: dict[str, tuple[str, str]] = {
    "NoSuchBucket": ("there is no such bucket", "Is its name right, and the ?endpoint=?"),
    "NoSuchKey": ("there is no such object", "Keys are case-sensitive."),
    "NoSuchVersion": ("there is no such version", "Does the bucket keep versions?"),
    "AccessDenied": ("access is denied", f"s3:ListBucket and s3:GetObject are needed. {_WHOSE}"),
    "AllAccessDisabled": ("access is disabled", _WHOSE),
    "InvalidAccessKeyId": ("the store does not know the access key", _WHOSE),
    "SignatureDoesNotMatch": ("the secret key is wrong", _WHOSE),
    "ExpiredToken": ("the session token has expired", _WHOSE),
    "InvalidToken": ("the session token is wrong", _WHOSE),
    "RequestTimeTooSkewed": ("the clock of this machine is wrong", "Set it, with NTP."),
    "PermanentRedirect": ("the bucket is in another region", _ELSEWHERE),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", _ELSEWHERE),
    "IllegalLocationConstraintException": ("the bucket is in another region", _ELSEWHERE),
    "404": ("there is no such object", "Keys are case-sensitive."),
    "403": ("access is denied", f"s3:ListBucket and s3:GetObject are needed. {_WHOSE}"),
    "400": ("the store refuses the request", f"A wrong region or key? {_WHOSE}"),
    "301": ("the bucket is in another region", _ELSEWHERE),
}


def connect(credential: Credential | None, endpoint: str | None, region: str | None) -> Any:
    """A botocore client for S3.

    :param credential: access key, secret key and in ``extra`` what Airflow's connection to Amazon
        has: ``aws_session_token``, ``endpoint_url``, ``region_name``. None: botocore's own chain
        (environment, profile, role); nothing there either: requests without a signature.
    :param endpoint: of the handle; counts more than the credential's. So does ``region``.
    :raises SourceError: the endpoint is not one, a profile does not exist.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    logging.getLogger("botocore").setLevel(logging.INFO)  # below that it logs tokens
    extra = credential.extra if credential else {}
    endpoint = endpoint or extra.get("endpoint_url")
    try:
        session = boto3.Session(
            aws_access_key_id=(credential and credential.login) or None,
            aws_secret_access_key=(credential and credential.password) or None,
            aws_session_token=extra.get("aws_session_token"),
            region_name=region or extra.get("region_name"),
            profile_name=extra.get("profile_name"),
        )
        client = session.client(
            "s3",
            endpoint_url=endpoint,
            region_name=session.region_name or "us-east-1",
            config=Config(
                signature_version="s3v4" if session.get_credentials() else UNSIGNED,
                # A store of one's own seldom has a name for each bucket; at Amazon both work.
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 5, "mode": "standard"},
                connect_timeout=10,
                read_timeout=60,
                max_pool_connections=16,
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise SourceError(f"no connection to S3 can be made: {error}", hint=_WHOSE) from error
    split(client.meta.endpoint_url)
    return client


def home_region(client: Any, bucket: str) -> str | None:
    """The region that a bucket is in, if the store says it.

    A signed download would fail in another region; botocore's own redirect covers its calls alone.
    """
    from botocore.exceptions import ClientError

    try:
        headers = client.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]
    except ClientError as error:  # also of a bucket that must not be listed; its answer names it
        headers = error.response["ResponseMetadata"]["HTTPHeaders"]
    region: str | None = headers.get("x-amz-bucket-region")
    return region


@contextmanager
def explained(shown: str) -> Iterator[None]:
    """Turns botocore's errors into a :class:`SourceError`. ``shown``: the address for people."""
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        said = error.response["Error"]
        meaning, hint = _MEANINGS.get(
            said["Code"], (f"the store answered {said['Code']}: {said.get('Message', '')}", None)
        )
        raise SourceError(f"{shown}: {meaning}", hint=hint) from error
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        said = re.sub(r'[?][^" ]*', "", str(error))  # of an address: it may be signed
        raise SourceError(
            f"{shown}: the store cannot be reached: {said}",
            hint="Is the ?endpoint= right, and can this machine reach it?",
        ) from error
    except exceptions.BotoCoreError as error:
        raise SourceError(f"{shown}: {error}", hint=_WHOSE) from error
    except RecursionError as error:  # botocore, where a redirect names no region
        raise SourceError(f"{shown}: {_MEANINGS['301'][0]}", hint=_ELSEWHERE) from error
