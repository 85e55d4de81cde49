"""Whether this machine has credentials of the cloud that a cluster's machines come from.

Only that there are some: whether the cloud takes them is seen when they are used. Not for: tokens of Ray (tunnel.py).
"""

from __future__ import annotations

from dfd_tune.cluster.launcher import Described, provider_of
from dfd_tune.errors import UserError, cause_of


def refuse_without_credentials(file: Described) -> None:
    """Refuse a cloud that this machine has no credentials of; other providers pass.

    Raises:
        UserError: there are none, or the library that would use them is missing.
    """
    check = {"aws": _check_aws, "gcp": _check_gcp}.get(provider_of(file))
    if check is None:
        return
    try:
        check(file)
    except ImportError as error:
        raise UserError(
            f"{file.path} is for the provider '{provider_of(file)}', which needs {error.name or 'more'}; install it "
            "with `pip install 'dfd-tune[cluster]'`."
        ) from None


def _check_aws(file: Described) -> None:
    import boto3
    from botocore.exceptions import BotoCoreError

    if file.config["provider"].get("aws_credentials"):
        return
    try:
        found = boto3.Session().get_credentials()
    except BotoCoreError as error:
        raise UserError(f"The credentials of AWS on this machine can't be read: {cause_of(error)}.") from None
    if found is None:
        raise UserError(
            "There are no credentials of AWS on this machine; run `aws configure`, or set AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )


def _check_gcp(file: Described) -> None:
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    if file.config["provider"].get("gcp_credentials"):
        return
    try:
        google.auth.default()
    except (GoogleAuthError, OSError) as error:
        raise UserError(
            "There are no credentials of Google Cloud on this machine; run `gcloud auth application-default login`, or "
            f"set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account ({cause_of(error)})."
        ) from None
