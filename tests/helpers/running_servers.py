"""A whole model server in a thread of the test's process, and requests to it over real sockets."""

import asyncio
import contextlib
import dataclasses
import http.client
import json
import ssl
import threading


@dataclasses.dataclass
class HttpResponse:
    """What HTTP gave back."""

    status: int
    text: str
    headers: dict

    @property
    def json(self):
        return json.loads(self.text)

    @property
    def error(self):
        """The error's text; the body must be nothing else."""
        [(key, value)] = self.json.items()
        assert key == "error"
        return value


class RunningServer:
    """A started server; `rest` and `grpc` are its ports."""

    def __init__(self, server, loop):
        self.server, self._loop = server, loop
        self.rest = server.rest.port if server.rest else None
        self.grpc = server.grpc.port if server.grpc else None

    def request(self, method, path, body=None, headers=None, tls=None):
        if body is not None and not isinstance(body, bytes):
            body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        kind = http.client.HTTPSConnection if tls else http.client.HTTPConnection
        options = {"context": tls} if tls else {}
        connection = kind("127.0.0.1", self.rest, timeout=120, **options)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return HttpResponse(response.status, response.read().decode(), dict(response.getheaders()))

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body, **options):
        return self.request("POST", path, body, **options)

    def on_loop(self, coroutine):
        """Runs a coroutine where the server runs."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)


@contextlib.contextmanager
def running_server(flags):
    """Runs the server of a command line's flags; port 0 is any free one for gRPC, and `rest_api_port=1` for REST."""
    from experiments_manager.serving.server.flags import parse
    from experiments_manager.serving.server.options import server_options
    from experiments_manager.serving.server.server import Server

    options = server_options(parse([*flags, "--port=1", "--rest_api_port=2"]))
    options = dataclasses.replace(options, grpc=dataclasses.replace(options.grpc, port=0))
    make_rest = options.rest

    def rest_at_a_free_port(handlers):
        rest = make_rest(handlers)
        rest._options = dataclasses.replace(rest._options, port=0)
        return rest

    options = dataclasses.replace(options, rest=rest_at_a_free_port)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="test server")
    thread.start()

    def on_loop(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(120)

    async def make():
        return Server(options)

    server = on_loop(make())
    try:
        on_loop(server.start())
        yield RunningServer(server, loop)
    finally:
        on_loop(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def tls_context(ca, certificate=None):
    """A client's TLS context that trusts an authority, with a certificate of its own if one is named."""
    context = ssl.create_default_context(cafile=str(ca))
    if certificate:
        context.load_cert_chain(*map(str, certificate))
    return context
