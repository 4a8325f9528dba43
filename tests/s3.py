"""Servers that speak the language of object stores, for as long as the tests run."""

import json
import threading
import urllib.request
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """The URL of a bucket of moto's server, at which the environment points."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    make_bucket(endpoint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("AWS_ACCESS_KEY_ID", "someone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_REGION", "us-east-1")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(scope="session")
def google_bucket(tmp_path_factory) -> Iterator[str]:
    """The same of a Google store. Its XML interface is that of S3 but for who signs a request."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_):
            pass

    s3 = DomainDispatcherApplication(create_backend_app)
    signed = {"HTTP_AUTHORIZATION": "AWS4-HMAC-SHA256 Credential=someone/20260101/us-east-1/s3/aws4_request"}
    server = make_server(
        "127.0.0.1", 0, lambda request, start: s3(request | signed, start), threaded=True, request_handler=Quiet
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    make_bucket(endpoint)
    account = tmp_path_factory.mktemp("google") / "account.json"
    keys = {"client_email": "", "private_key": "", "private_key_id": "", "disable_oauth": True}
    account.write_text(json.dumps({"gcs_base_url": endpoint, **keys}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOOGLE_SERVICE_ACCOUNT", str(account))
        yield "gs://bucket"
    server.shutdown()
    server.server_close()


def make_bucket(endpoint: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT")).close()
