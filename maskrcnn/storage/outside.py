"""What others wrote, and we are asked to open: the URIs of a manifest, the names of a COCO file or an inventory.

Decided from the text alone, before any file or socket is opened. Which URIs the user of a command types is the user's
own business, but for credentials: those would be kept in plans, tables, records and bundles.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
import unicodedata
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from maskrcnn.errors import InputError
from maskrcnn.redaction import has_credentials, has_secrets, redact

OPEN_SCHEMES = frozenset({"s3", "gs", "az", "abfs", "abfss", "http", "https"})
"""Of the URIs in a manifest; besides the scheme of the manifest itself, which its user chose. Not among them are the
file systems that log in elsewhere, run through other files (`::`, zip, reference), or reach into this machine."""

_BUCKET_SCHEMES = frozenset({"s3", "gs", "az"})
"""What follows is a bucket, not a host."""
_BUCKET = re.compile(r"[A-Za-z0-9._-]+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_METADATA_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",
        "fe80::/10",
        "fd00:ec2::/32",  # EC2's, over IPv6
        "100.100.100.200/32",  # Alibaba's
        "168.63.129.16/32",  # Azure's
        "192.0.0.192/32",  # Oracle's
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")


def check_no_credentials(uri: str, thing: str, place: str = "") -> None:
    """Refuse a URI or path that carries a secret.

    Raises:
        InputError: naming it without the secret.
    """
    if has_credentials(uri):
        _refuse_credentials(uri, thing, place)


def check_no_secrets(text: str, thing: str, place: str = "") -> None:
    """Refuse a text of any kind that holds a secret.

    Raises:
        InputError: naming it without the secret.
    """
    if has_secrets(text):
        _refuse_credentials(text, thing, place)


def _refuse_credentials(text: str, thing: str, place: str) -> NoReturn:
    rule = f"must hold no credentials, got {redact(text):.300}"
    raise InputError(thing, rule, place, "give them by the environment or a role; a signed URL is another every day")


def check_image_uri(uri: str, manifest_uri: str) -> None:
    """Refuse an image's URI that a manifest must not name.

    Args:
        uri: as the manifest has it.
        manifest_uri: where the manifest lies, normalised: its own scheme may be used, and one that does not lie on
            this machine must not name this machine's files.

    Raises:
        InputError: for another scheme, `..`, a NUL, credentials, or an address that answers with a machine's secrets.
    """
    check_no_credentials(uri, "image_uri", manifest_uri)
    rule = _broken_rule(uri, manifest_uri)
    if rule is not None:
        raise InputError(f"image_uri {redact(uri)!r:.300}", rule, manifest_uri)


def broken_rule_of_name(name: str) -> str | None:
    """Say which rule a name breaks that must lie below a folder; None for none.

    Args:
        name: relative, with `/` between folders; percent-encoded or not.
    """
    decoded = unquote(name)
    if "\0" in decoded:
        return "must not hold a NUL"
    if "\\" in decoded:
        return "must have / between folders, not a backslash"
    if decoded.startswith("/") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", decoded):
        return "must be relative to its folder"
    if ".." in decoded.split("/"):
        return "must not leave its folder"
    return None


def is_bucket_name(name: str) -> bool:
    """Say whether a name can be a bucket's: nothing in it leads to another host."""
    return _BUCKET.fullmatch(name) is not None


def _broken_rule(uri: str, manifest_uri: str) -> str | None:
    decoded = unquote(uri)
    if "\0" in decoded:
        return "must not hold a NUL"
    if ".." in re.split(r"[/\\]", decoded):
        return "must not hold .. as a folder"
    found = _SCHEME.match(uri)
    scheme = found[1].lower() if found else "file"
    own = _SCHEME.match(manifest_uri)
    own_scheme = own[1].lower() if own else "file"
    if "://" in uri and found is None:
        return "must have one scheme"
    if scheme not in OPEN_SCHEMES | {own_scheme}:
        allowed = ", ".join(sorted(OPEN_SCHEMES | {own_scheme}))
        return f"must have one of the schemes {allowed}"
    if found is None:
        return None
    try:
        netloc = urlsplit(uri).netloc
    except ValueError:
        return "must have a host that can be read"
    host = netloc.rsplit("@", 1)[-1]
    if scheme == "file":
        return None if host.lower() in ("", "localhost") else "must not name another host's files"
    if scheme in _BUCKET_SCHEMES:
        return None if is_bucket_name(netloc) else "must name a bucket"
    if "::" in host and not host.startswith("["):
        return "must have one scheme"
    return "must not lead to an address of this network's own services" if is_metadata_host(host) else None


@functools.lru_cache(maxsize=4096)
def is_metadata_host(host: str) -> bool:
    """Say whether a host is link-local or gives a cloud's machines their credentials, however it is spelt.

    Args:
        host: a name or an address, perhaps with a port; as in a URL.
    """
    name = unicodedata.normalize("NFKC", unquote(host)).lower().replace("。", ".")
    name = re.sub(r"^\[(.*?)\](:\d*)?$|^([^:]*)(:\d*)$", lambda m: m[1] or m[3] or "", name).rstrip(".")
    if name in _METADATA_NAMES:
        return True
    address = _parse_address(name)
    return address is not None and any(
        one.version == network.version and one in network
        for one in _meanings(address)
        for network in _METADATA_NETWORKS
    )


def _parse_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address as a C library does: 0xA9FEA9FE, 0251.0376.0251.0376, 169.254.43518, 2852039166."""
    try:
        return ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(name))
    except (OSError, ValueError):
        return None


def _meanings(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Give an address, and the IPv4 address that it carries inside."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    carried = [address.ipv4_mapped, address.sixtofour]
    if address in _NAT64 or address in _COMPATIBLE:
        carried.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(one for one in carried if one is not None)]
