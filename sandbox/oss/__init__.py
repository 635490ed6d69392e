"""A server that speaks the protocol of Alibaba Cloud OSS: a test double of a service that nobody can run.

There is no OSS to install, so the demo, the tests and the bench need somebody who answers the way it
does. Stock SDKs do their object operations against this one unchanged.

It does: PutObject, GetObject (ranges, conditions), HeadObject and GetObjectMeta, DeleteObject,
DeleteMultipleObjects and ListObjectsV2 on one bucket; signature version 4 in the header and in the URL,
really verified; reading without a signature, unless the bucket is private; path style for IP addresses
and single host names, virtual host style for all others; the codes, headers and XML of the service. It
keeps objects on disk through a SIGKILL. It fails on demand: see `faults`, and the control API that is
not part of the bucket, in path style only:

    PUT /-/faults     a JSON list of rules replaces those in force
    GET /-/faults     the rules that are left
    DELETE /-/faults  none is in force
    GET /-/requests   how many requests came, by method

It does not: anything else. Other operations are answered 501 NotImplemented, signatures of version 1
the way the service answers new users, and there is neither TLS nor versioning nor multipart upload.
"""

from sandbox.oss.faults import Fault, Faults, Kind
from sandbox.oss.server import OssServer
from sandbox.oss.signature import Credentials

__all__ = ["Credentials", "Fault", "Faults", "Kind", "OssServer"]
