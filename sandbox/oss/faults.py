"""Failures on demand: rules that say which requests fail, how, and how often."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from sandbox.oss.errors import CODES, OssError


class Kind(StrEnum):
    """How a request fails."""

    DENY = "deny"  # 403 AccessDenied
    THROTTLE = "throttle"  # 503 UploadTrafficRateLimitExceeded or DownloadTrafficRateLimitExceeded
    ERROR = "error"  # 500 InternalError
    STALL = "stall"  # accepted, never answered
    RESET = "reset"  # the connection is reset before anything is read
    CUT = "cut"  # a GET that ends after some bytes of its body
    COMMIT_THEN_DROP = "commit_then_drop"  # a PUT that is stored and gets no answer
    WRONG_CRC = "wrong_crc"  # answered with another x-oss-hash-crc64ecma


_ONLY_FOR: Final = {Kind.CUT: "GET", Kind.COMMIT_THEN_DROP: "PUT"}


@dataclass(slots=True)
class Fault:
    """One rule. `times` None: for ever; `code`: another known code instead of the kind's own."""

    kind: Kind
    method: str | None = None
    key_prefix: str = ""
    times: int | None = None
    after_bytes: int = 0
    code: str = ""

    def __post_init__(self) -> None:
        self.kind = Kind(self.kind)
        if self.code and self.code not in CODES:
            raise ValueError(f"the code {self.code!r} is not one of {', '.join(sorted(CODES))}")

    def matches(self, method: str, key: str) -> bool:
        """Whether it is about such a request; one without a key (list, delete many) has an empty key."""
        only_for = _ONLY_FOR.get(self.kind, method)
        return method == only_for and self.method in (None, method) and key.startswith(self.key_prefix)

    def refusal(self, method: str) -> OssError | None:
        """What to answer instead of doing anything, None if it fails in another way."""
        direction = "Upload" if method == "PUT" else "Download"
        match self.kind:
            case Kind.DENY:
                return OssError(self.code or "AccessDenied")
            case Kind.THROTTLE:
                return OssError(self.code or f"{direction}TrafficRateLimitExceeded")
            case Kind.ERROR:
                return OssError(self.code or "InternalError")
            case _:
                return None


class Faults:
    """The rules in force; the first that matches a request is used."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """It is in force, behind those that are."""
        self._rules.append(fault)

    def replace(self, rules: Iterable[dict[str, Any]]) -> None:
        """Exactly these are in force.

        Raises:
            TypeError, ValueError: a rule is not one; the old ones stay in force.
        """
        self._rules = [Fault(**rule) for rule in rules]

    def clear(self) -> None:
        """None is in force."""
        self._rules.clear()

    def take(self, method: str, key: str) -> Fault | None:
        """The rule for this request, which has then been used once more."""
        for fault in self._rules:
            if fault.matches(method, key):
                self._use(fault)
                return fault
        return None

    def _use(self, fault: Fault) -> None:
        if fault.times is None:
            return
        fault.times -= 1
        if fault.times <= 0:
            self._rules.remove(fault)

    def as_json(self) -> list[dict[str, Any]]:
        """The rules in force, in the shape that `replace` takes."""
        return [asdict(fault) for fault in self._rules]
