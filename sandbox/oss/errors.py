"""The error codes of the service: status, sentence and error XML.

Source: OSS documentation, "HTTP status codes" and the pages of the single error codes (EC).
"""

import base64
from typing import Final
from xml.sax.saxutils import escape

# code: (status, message, EC). An EC that no page or bug report showed us is left empty.
_KNOWN: Final[dict[str, tuple[int, str, str]]] = {
    "AccessDenied": (403, "You have no right to access this object because of bucket acl.", "0003-00000001"),
    "DownloadTrafficRateLimitExceeded": (503, "Please reduce your download request traffic", ""),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size.", ""),
    "FileAlreadyExists": (
        409,
        "The object you specified already exists and can not be overwritten.",
        "0026-00000002",
    ),
    "InternalError": (500, "We encountered an internal error, please try again.", ""),
    "InvalidAccessKeyId": (
        403,
        "The OSS Access Key Id you provided does not exist in our records.",
        "0002-00000902",
    ),
    "InvalidArgument": (400, "A request argument is invalid.", ""),
    "InvalidDigest": (400, "The Content-MD5 you specified was invalid.", "0017-00000503"),
    "InvalidObjectName": (400, "The specified object is not valid.", ""),
    "InvalidRange": (416, "The requested range cannot be satisfied", ""),
    "InvalidSecurityToken": (403, "The security token you provided is invalid.", ""),
    "MalformedXML": (400, "The XML you provided was not well-formed.", ""),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header.", ""),
    "NoSuchBucket": (404, "The specified bucket does not exist.", "0015-00000101"),
    "NoSuchKey": (404, "The specified key does not exist.", "0026-00000001"),
    "NotImplemented": (501, "A header you provided implies functionality that is not implemented.", ""),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold.", ""),
    "PublicEndpointForbidden": (400, "The public endpoint is forbidden for this bucket.", ""),
    "QpsLimitExceeded": (429, "Please reduce your request rate.", ""),
    "RequestTimeTooSkewed": (
        403,
        "The difference between the request time and the current time is too large.",
        "0002-00000504",
    ),
    "RequestTimeout": (
        400,
        "Your socket connection to the server was not read from or written to within the timeout period.",
        "",
    ),
    "SecurityTokenExpired": (403, "The security token you provided has expired.", ""),
    "ServiceUnavailable": (503, "Thread pool is almost full, please retry later", ""),
    "SignatureDoesNotMatch": (
        403,
        (
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method."
        ),
        "0002-00000040",
    ),
    "UploadTrafficRateLimitExceeded": (503, "Please reduce your upload request traffic", ""),
    "UserDisable": (403, "UserDisable", "0003-00000801"),
}
CODES: Final = frozenset(_KNOWN)


class OssError(Exception):
    """A refusal by its code; `fields` are further elements of the error XML."""

    def __init__(self, code: str, message: str = "", *, ec: str = "", fields: dict[str, str] | None = None) -> None:
        self.code = code
        self.status, usual_message, usual_ec = _KNOWN[code]
        self.message = message or usual_message
        self.ec = ec or usual_ec
        self.fields = fields or {}
        super().__init__(f"{code}: {self.message}")

    def xml(self, request_id: str, host: str) -> bytes:
        """The body that the service answers with."""
        elements = {
            "Code": self.code,
            "Message": self.message,
            "RequestId": request_id,
            "HostId": host,
            **self.fields,
            "EC": self.ec,
        }
        inner = "".join(f"  <{name}>{escape(text)}</{name}>\n" for name, text in elements.items() if text)
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>\n{inner}</Error>\n'.encode(
            errors="replace",  # a lone surrogate came from bytes of the request that were no UTF-8
        )

    def headers(self, xml: bytes, *, is_head: bool) -> dict[str, str]:
        """The headers beside the body; a HEAD has no body and carries it in `x-oss-err`."""
        headers = {"Content-Type": "application/xml"}
        if self.ec:
            headers["x-oss-ec"] = self.ec
        if is_head:
            headers["x-oss-err"] = base64.b64encode(xml).decode()
        return headers
