"""Prints two tokens for the emulator's account: one that is valid for a day, one that has expired."""

import base64
import datetime
import hashlib
import hmac
import urllib.parse

ACCOUNT = "devstoreaccount1"
# Of the emulator, the same everywhere and in its documentation: no secret.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
VERSION = "2018-11-09"


def token(hours: int) -> str:
    """An account's token for reading, listing, writing and creating, until so many hours from now."""
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=hours)
    begin = end - datetime.timedelta(hours=48)
    start, expiry = (time.strftime("%Y-%m-%dT%H:%M:%SZ") for time in (begin, end))
    fields = {"sv": VERSION, "ss": "b", "srt": "sco", "sp": "rwlc", "st": start, "se": expiry}
    # Range of addresses and protocols stay empty; the order is the protocol's.
    lines = [ACCOUNT, *(fields[name] for name in ("sp", "ss", "srt", "st", "se")), "", "", VERSION, ""]
    digest = hmac.new(base64.b64decode(KEY), "\n".join(lines).encode(), hashlib.sha256).digest()
    return urllib.parse.urlencode(fields | {"sig": base64.b64encode(digest).decode()})


print(token(24), token(-1))
