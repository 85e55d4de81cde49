"""What is wrong with a Ray cluster file, one sentence a problem, each with its field and line.

Asked are Ray's own schema and loader, which need no cloud's SDK, and then what they let pass though no cluster comes of
it. Nothing is started or reached. Not for: what a right file says (files.py).
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dfd_tune.errors import nearest, unknown_name
from dfd_tune.yaml_file import YamlFile

PLACEHOLDER = re.compile(r"\bFILL_IN_[A-Z0-9_]+")
"""What stands in the shipped files where only their user knows the value."""
TOKEN_PLACE = ".ray/auth_token"
"""Where Ray looks for a cluster's token, below a home folder."""
INTERNAL = ("readonly", "kuberay", "spark", "fake_multinode", "fake_multinode_docker")
"""Ray's providers that `ray up` starts no cluster with."""
NEEDED = {
    "aws": ("region",),
    "gcp": ("region", "availability_zone", "project_id"),
    "azure": ("location", "resource_group"),
    "external": ("module",),
}
"""What Ray reads of a provider without asking whether it is there."""
FILLS_RESOURCES = ("aws", "external")
"""Providers that tell the resources of a node type by themselves."""
OUTSIDE_SCHEMA = ("coordinator_address", "external_head_ip", "aws_credentials", "unique_id", "cache_stopped_nodes")
"""Keys of a provider that Ray reads but its schema does not name."""
SURE = 0.85
"""By so much a provider's key is like a known one if it is a slip; any others are allowed there."""
WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "a mapping",
    "boolean": "true or false",
}

Place = Sequence[object]


def problems_of_shape(file: YamlFile) -> list[str]:
    """What keeps a file from being a cluster's: keys, types, what is missing, and what does not fit together."""
    provider = file.content.get("provider")
    kind = provider.get("type") if isinstance(provider, dict) else None
    schema = _schema(kind)
    problems = _schema_problems(file, schema)
    if not problems:
        problems = _node_type_problems(file) + _mount_problems(file)
    if not isinstance(provider, dict) or not isinstance(kind, str):
        return problems
    known = [name for name in _known_providers() if name not in INTERNAL]
    if kind not in known:
        return [*problems, file.say("provider: " + unknown_name("type", kind, known), "provider", "type")]
    problems += _provider_problems(file, provider, kind, schema["properties"]["provider"]["properties"])
    return problems or (_local_problems(file, provider) if kind == "local" else [])


def prepared_by_ray(file: YamlFile) -> tuple[dict[str, Any], list[str]]:
    """The configuration that Ray makes of a file by its defaults, checked as `ray up` does; and why it refuses it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), _quiet("ray.autoscaler._private.util"):
            prepared = prepare_config(_without_empty_legacy(file.content))
            for node_type in prepared.get("available_node_types", {}).values():
                node_type.setdefault("resources", {})
            validate_config(prepared)
    except Exception as error:  # whatever its loader trips over, it is this file that it trips over
        reason = " ".join(str(error).split("\n")[0].split())
        if "cli_logger.abort" in reason:
            reason = " ".join(said.getvalue().split())
        return {}, [f"{file.path}: Ray refuses this file: {type(error).__name__}: {reason[:300].rstrip('.')}."]
    return prepared, []


def problems_unfilled(file: YamlFile) -> list[str]:
    """The placeholders that are still in a file, each once."""
    found: dict[str, list[Place]] = {}
    for place, text in _texts(file.content):
        for name in PLACEHOLDER.findall(text):
            found.setdefault(name, []).append(place)
    problems = []
    for name, places in found.items():
        more = (
            f", and in {len(places) - 1} more places" if len(places) > 2 else ", and in one more" * (len(places) == 2)
        )
        problems.append(
            file.say(f"{name} still stands at {_field(places[0])}{more}; put your own value in its place.", *places[0])
        )
    return problems


def problems_of_local_files(file: YamlFile) -> list[str]:
    """What is wrong with the files of this machine that a cluster file names: keys, and what it copies to the nodes."""
    problems = []
    auth = file.content.get("auth")
    for name in ("ssh_private_key", "ssh_public_key"):
        given = auth.get(name) if isinstance(auth, dict) else None
        if not isinstance(given, str) or PLACEHOLDER.search(given):
            continue
        wrong = _wrong_with(given, secret=name == "ssh_private_key")
        if wrong == MISSING:
            wrong += (
                f"; name another key, or make this one: ssh-keygen -t ed25519 -N '' -f {given.removesuffix('.pub')}"
            )
        if wrong is not None:
            problems.append(file.say(f"auth.{name} names '{given}', which {wrong}.", "auth", name))
    mounts = file.content.get("file_mounts")
    for target, source in (mounts if isinstance(mounts, dict) else {}).items():
        if not isinstance(source, str) or PLACEHOLDER.search(source):
            continue
        token = is_token(str(target))
        wrong = _wrong_with(source, secret=token)
        if wrong == MISSING and token:
            wrong += f"; make a token: ray get-auth-token --generate > /dev/null; chmod 600 {source}"
        if wrong is not None:
            problems.append(file.say(f"file_mounts copies '{source}', which {wrong}.", "file_mounts", target))
    return problems


@contextlib.contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """A logger says nothing below a warning, for the length of the block."""
    talker = logging.getLogger(logger)
    level = talker.level
    talker.setLevel(logging.WARNING)
    try:
        yield
    finally:
        talker.setLevel(level)


def is_token(target: str) -> bool:
    """Whether a path on the nodes is where Ray looks for a cluster's token."""
    return target.endswith(TOKEN_PLACE)


MISSING = "is not there"


def _wrong_with(name: str, *, secret: bool) -> str | None:
    path = Path(os.path.expanduser(name))
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if secret and mode & 0o077:
            return f"others can read (mode {mode:04o}); make it yours alone: chmod 600 {name}"
    except OSError:
        return MISSING
    return None


def _known_providers() -> list[str]:
    from ray.autoscaler._private.providers import _NODE_PROVIDERS

    return list(_NODE_PROVIDERS)


def _schema(provider: object) -> dict[str, Any]:
    """Ray's schema, as it stands for a file as it is written: before Ray's loader fills in what a provider knows."""
    import ray.autoscaler

    schema: dict[str, Any] = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    schema["properties"]["min_workers"] = {"type": "integer", "minimum": 0}  # taken out by the loader
    if provider in FILLS_RESOURCES:
        (node_type,) = schema["properties"]["available_node_types"]["patternProperties"].values()
        node_type["required"] = [name for name in node_type["required"] if name != "resources"]
    return schema


def _without_empty_legacy(content: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a file's content without the fields of old files that Ray drops if they are empty."""
    return {
        key: copy.deepcopy(value) for key, value in content.items() if key not in ("head_node", "worker_nodes") or value
    }


def _schema_problems(file: YamlFile, schema: Mapping[str, Any]) -> list[str]:
    from jsonschema import Draft7Validator

    problems = []
    for error in Draft7Validator(schema).iter_errors(_without_empty_legacy(file.content)):
        place = list(error.absolute_path)
        for problem, key in _in_words(error, _field(place)):
            problems.append(file.say(problem, *place, *key))
    return list(dict.fromkeys(problems))


def _in_words(error: Any, field: str) -> Iterator[tuple[str, Place]]:
    """What a schema's error says, as sentences; each with the key below the error's place that it is about, if any."""
    rule, wanted, given = error.validator, error.validator_value, error.instance
    known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
    before = f"{field}: " if field else ""
    if rule == "additionalProperties":
        for key in given:
            if key not in known:
                yield before + unknown_name("key", key, known), [key]
    elif rule == "required":
        for name in wanted:
            if name not in given:
                yield _missing(field, name, given, known), []
    elif rule == "type":
        kinds = wanted if isinstance(wanted, list) else [wanted]
        allowed = " or ".join(str(WORDS.get(kind, kind)) for kind in kinds)
        yield f"{field} is {_short(given)}, but must be {allowed}.", []
    elif rule in ("minimum", "enum"):
        allowed = f"at least {wanted}" if rule == "minimum" else " or ".join(map(repr, wanted))
        yield f"{field} is {_short(given)}, but must be {allowed}.", []
    else:
        yield f"{before}{error.message.splitlines()[0][:300].rstrip('.')}.", []


def _missing(field: str, name: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """A sentence for a field that is not there; if one that nobody knows is like it, that is named."""
    close = nearest(name, [str(key) for key in given if key not in known])
    hint = f"; is '{close}' meant to be it?" if close else "."
    return f"{field or 'the file'} has no `{name}`, which Ray needs{hint}"


def _provider_problems(file: YamlFile, provider: Mapping[str, Any], kind: str, schema: Mapping[str, Any]) -> list[str]:
    known = {**schema, **dict.fromkeys(OUTSIDE_SCHEMA)}
    needed: tuple[str, ...] = NEEDED.get(kind, ())
    if kind == "local" and "coordinator_address" not in provider:
        needed = ("head_ip", "worker_ips")
    problems = [
        file.say(_missing("provider", name, provider, known), "provider")
        for name in needed
        if provider.get(name) is None
    ]
    if problems:
        return problems
    for key in provider:
        close = None if key in known else nearest(key, known, cutoff=SURE)
        if close is not None:
            problems.append(file.say(f"provider: Unknown key '{key}'. Did you mean '{close}'?", "provider", key))
    return problems


def _local_problems(file: YamlFile, provider: Mapping[str, Any]) -> list[str]:
    """What is wrong with the hosts of an on-premises cluster."""
    problems = [
        file.say(f"{key} is for clouds; with provider local, leave it out: hosts are what they are.", key)
        for key in ("available_node_types", "head_node_type")
        if file.content.get(key)
    ]
    hosts = provider.get("worker_ips")
    if not isinstance(hosts, list):
        return problems
    seen = {provider.get("head_ip")}
    for index, host in enumerate(hosts):
        place = ("provider", "worker_ips", index)
        if not isinstance(host, str) or not host:
            problems.append(
                file.say(f"{_field(place)} is {_short(host)}, but must be a host's name or address.", *place)
            )
        elif host in seen and not PLACEHOLDER.search(host):
            problems.append(
                file.say(
                    f"{_field(place)} is '{host}', which is named before; a host is one node, head or worker.", *place
                )
            )
        else:
            seen.add(host)
    least, most = min(file.content.get("min_workers", len(hosts)), len(hosts)), file.content.get("max_workers")
    if most is not None and most < least:
        rule = f"min_workers, which is {least}: all hosts, unless the file says fewer; give both, or neither"
        problems.append(file.say(f"max_workers is {most}, but must be at least {rule}.", "max_workers"))
    return problems


def _node_type_problems(file: YamlFile) -> list[str]:
    """What does not fit together of node types that are right by themselves."""
    types, head = file.content.get("available_node_types"), file.content.get("head_node_type")
    if not types:
        return []
    if head is None:
        return [file.say("the file has no `head_node_type`, which names the head's of its node types.")]
    problems = []
    if head not in types:
        problems.append(file.say("head_node_type: " + unknown_name("node type", head, types), "head_node_type"))
    least, most = sum(kind.get("min_workers", 0) for kind in types.values()), file.content.get("max_workers")
    if most is not None and least > most:
        problems.append(
            file.say(
                f"max_workers is {most}, but the node types' min_workers add up to {least}; raise it.", "max_workers"
            )
        )
    return problems


def _mount_problems(file: YamlFile) -> list[str]:
    return [
        file.say(
            f"file_mounts: {target} is {_short(source)}, but must be a path on this machine.", "file_mounts", target
        )
        for target, source in (file.content.get("file_mounts") or {}).items()
        if not isinstance(source, str)
    ]


def _texts(value: Any, place: tuple[object, ...] = (), above: tuple[int, ...] = ()) -> Iterator[tuple[Place, str]]:
    """All texts inside `value`, with where they are. What holds itself is looked at once."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict | list) and id(value) not in above:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _texts(item, (*place, key), (*above, id(value)))


def _field(place: Place) -> str:
    """A place as text: keys with dots between them, indices in brackets."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
