"""`basic_auth_users` of the web configuration: names and bcrypt hashes.

Hashes are read as golang.org/x/crypto/bcrypt reads them, and written anew as Python's library wants
them, which is stricter: any letter behind `$2`, or none, means the same algorithm; of the salt's
last letter two bits count; and what stands behind the hash (often the line's end) is nothing.
"""

from __future__ import annotations

import re

from wattledger_exporters.web_yaml import Faults, Scalar

AT = "basic_auth_users"
# Cost, salt and hash.
_HASH = re.compile(r"\$2[ -#%-~]?\$(0[4-9]|[12]\d|3[01])\$([./A-Za-z0-9]{22})([./A-Za-z0-9]{31})")
_LETTERS = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_COUNTED = 0b110000
_NO_HASH = "is not a bcrypt hash; `htpasswd -nBC 10 \"\" | tr -d ':\\n'` makes one"


def read_users(value: object, faults: Faults) -> dict[str, str]:
    """Name → bcrypt hash; empty: no password is asked for.

    Args:
        value: as the YAML parser gave it.
        faults: grows by (key path, fault and remedy).
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.append((AT, "must be a mapping of names to bcrypt hashes"))
        return {}
    users: dict[str, str] = {}
    for key, hashed in value.items():
        name = "" if key is None else key  # as Go has it
        if not isinstance(name, Scalar | str) or ":" in name:
            faults.append((f"{AT}.{name}", "a name is text without a colon"))
            continue
        found = _HASH.match(hashed) if isinstance(hashed, Scalar) else None
        if found is None:
            faults.append((f"{AT}.{name}", _NO_HASH))
            continue
        if str(name) in users:
            faults.append((f"{AT}.{name}", "stands there twice"))
        users[str(name)] = _written(*found.groups())
    return users


def _written(cost: str, salt: str, hashed: str) -> str:
    last = _LETTERS[_LETTERS.index(salt[-1]) & _COUNTED]
    return f"$2b${cost}${salt[:-1]}{last}{hashed}"
