"""The sandbox's OSS server accepts exactly what oss2 signs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import oss2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.oss import Credentials
from sandbox.oss.address import Address
from sandbox.oss.errors import OssError
from sandbox.oss.signature import Message, authenticate

ACCOUNT = Credentials("AK", "secret")
REGION = "cn-hangzhou"
odd_text = st.text(st.sampled_from("az09 %+/\\.~@&=;?#'\"<>\n\r\x01\x7fé雪🦊-_"), min_size=1, max_size=24)


class Captured(Exception):  # noqa: N818 - it carries a request, it reports no error
    def __init__(self, request: oss2.http.Request) -> None:
        self.request = request


class CapturingSession:
    def do_request(self, request: oss2.http.Request, timeout: object) -> None:
        raise Captured(request)


def bucket(
    auth: oss2.AuthV4 = None, *, endpoint: str = "http://127.0.0.1:9", region: str = REGION, token: str = ""
) -> oss2.Bucket:
    if token:
        auth = oss2.ProviderAuthV4(oss2.credentials.StaticCredentialsProvider("AK", "secret", token))
    auth = auth or oss2.AuthV4("AK", "secret")
    return oss2.Bucket(auth, endpoint, "images", region=region, session=CapturingSession())


def sent(method: str, url: str, headers: dict[str, str] | None = None) -> Message:
    parts = urlsplit(url)
    address = Address.of(parts.netloc, f"{parts.path}?{parts.query}")
    lowered = {name.lower(): value for name, value in (headers or {}).items()}
    return Message(method, address.bucket, address.key, address.query, lowered)


def captured(call: Callable[[], object]) -> Message:
    """What `requests` would put on the wire for a call of oss2."""
    with pytest.raises(Captured) as caught:
        call()
    request = caught.value.request
    prepared = oss2.http.requests.Request(request.method, request.url, params=request.params).prepare()
    return sent(request.method, prepared.url, dict(request.headers))


def check(message: Message, account: Credentials = ACCOUNT, *, after_s: int = 0) -> bool:
    return authenticate(message, account, REGION, datetime.now(UTC) + timedelta(seconds=after_s))


def refusal(message: Message, account: Credentials = ACCOUNT, *, after_s: int = 0) -> OssError:
    with pytest.raises(OssError) as caught:
        check(message, account, after_s=after_s)
    return caught.value


@given(odd_text.filter(lambda key: key.strip() and key[0] not in "/\\"))  # oss2 refuses blank keys
def test_a_presigned_url_of_any_key_is_accepted(key: str) -> None:
    headers = {"Content-Type": "image/png", "x-oss-meta-event-id": "1", "Cache-Control": "max-age=9"}
    url = bucket().sign_url("PUT", key, 60, headers=headers, slash_safe=True)

    assert check(sent("PUT", url, headers))
    assert sent("PUT", url).key == key


@given(odd_text, odd_text)
def test_any_query_of_a_header_signature_is_accepted(prefix: str, delimiter: str) -> None:
    assert check(captured(lambda: bucket().list_objects_v2(prefix=prefix, delimiter=delimiter)))


def test_virtual_host_style_is_signed_like_path_style() -> None:
    virtual = bucket(endpoint="http://oss.example.com")

    assert check(sent("GET", virtual.sign_url("GET", "a/b c.png", 60, slash_safe=True)))
    assert check(captured(lambda: virtual.put_object("a/b c.png", b"x")))


def test_additional_headers_are_part_of_the_signature() -> None:
    headers = {"Cache-Control": "no-store"}
    url = bucket().sign_url("GET", "k", 60, headers=headers, additional_headers=["Cache-Control"])

    assert check(sent("GET", url, headers))
    assert refusal(sent("GET", url, {"Cache-Control": "other"})).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("changed", ["content-type", "x-oss-meta-event-id", "method", "key", "query"])
def test_a_changed_request_is_refused(changed: str) -> None:
    headers = {"content-type": "image/png", "x-oss-meta-event-id": "1"}
    url = bucket().sign_url("PUT", "key", 60, headers=headers)
    method = "GET" if changed == "method" else "PUT"
    url = url.replace("/key?", "/yek?") if changed == "key" else url
    url = f"{url}&more=1" if changed == "query" else url
    if changed in headers:
        headers[changed] = "other"

    assert refusal(sent(method, url, headers)).code == "SignatureDoesNotMatch"


def test_the_explanation_of_a_wrong_signature_holds_no_secret() -> None:
    error = refusal(sent("GET", bucket().sign_url("GET", "k", 60)), Credentials("AK", "another secret"))

    assert error.code == "SignatureDoesNotMatch"
    assert b"another secret" not in error.xml("id", "host")
    assert "another secret" not in repr(Credentials("AK", "another secret"))


def test_a_request_without_signature_is_nobodys() -> None:
    assert check(sent("GET", "http://127.0.0.1/images/key")) is False


def test_a_header_signature_lives_fifteen_minutes_either_way() -> None:
    message = captured(lambda: bucket().put_object("key", b"x"))

    assert check(message, after_s=890)
    assert check(message, after_s=-890)
    assert refusal(message, after_s=910).code == "RequestTimeTooSkewed"
    assert refusal(message, after_s=-910).code == "RequestTimeTooSkewed"


def test_a_presigned_url_lives_as_long_as_it_says() -> None:
    message = sent("GET", bucket().sign_url("GET", "key", 3600))

    assert check(message, after_s=3590)
    expired = refusal(message, after_s=3610)
    assert (expired.code, expired.message) == ("AccessDenied", "Request has expired.")
    assert refusal(message, after_s=-910).message == "Request is not yet valid."


@pytest.mark.parametrize("expires_s", [0, 604801])
def test_a_presigned_url_lives_at_most_seven_days(expires_s: int) -> None:
    assert refusal(sent("GET", bucket().sign_url("GET", "key", expires_s))).ec == "0002-00000232"


def test_another_region_is_refused() -> None:
    error = refusal(sent("GET", bucket(region="cn-beijing").sign_url("GET", "key", 60)))

    assert (error.status, error.code, error.ec) == (400, "InvalidArgument", "0002-00000226")


def test_an_unknown_access_key_is_refused() -> None:
    auth = oss2.AuthV4("other", "secret")

    assert refusal(sent("GET", bucket(auth).sign_url("GET", "key", 60))).code == "InvalidAccessKeyId"


def test_a_temporary_key_needs_its_token() -> None:
    temporary = Credentials("AK", "secret", "token")

    assert check(captured(lambda: bucket(token="token").put_object("key", b"x")), temporary)
    assert check(sent("GET", bucket(token="token").sign_url("GET", "key", 60)), temporary)
    assert refusal(sent("GET", bucket().sign_url("GET", "key", 60)), temporary).code == "InvalidAccessKeyId"
    wrong = sent("GET", bucket(token="other").sign_url("GET", "key", 60))
    assert refusal(wrong, temporary).code == "InvalidSecurityToken"


def test_version_1_is_answered_as_to_a_new_user() -> None:
    old = bucket(oss2.Auth("AK", "secret"))

    for message in (sent("GET", old.sign_url("GET", "key", 60)), captured(lambda: old.put_object("key", b"x"))):
        error = refusal(message)
        assert (error.status, error.ec) == (403, "0002-00000080")


@pytest.mark.parametrize(
    "authorization",
    ["", "Basic x", "OSS4-HMAC-SHA256 Credential=a/b", "OSS4-HMAC-SHA256 Credential=a,Signature=b"],
)
def test_a_malformed_header_is_an_invalid_argument(authorization: str) -> None:
    headers = {"authorization": authorization, "x-oss-date": "20260101T000000Z"}

    assert refusal(sent("GET", "http://127.0.0.1/images/key", headers)).code == "InvalidArgument"


def test_a_header_signature_without_a_date_is_refused() -> None:
    headers = {"authorization": "OSS4-HMAC-SHA256 Credential=a/b/c/oss/aliyun_v4_request,Signature=b"}

    assert refusal(sent("GET", "http://127.0.0.1/images/key", headers)).code == "AccessDenied"
