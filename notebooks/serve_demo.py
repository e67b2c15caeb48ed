"""Serve demo.ipynb, the photo page of `make demo`, by Voilà, to visitors on this machine alone.

python notebooks/serve_demo.py [--port=8866] [other options of Voilà]
"""

import contextlib
import sys
from pathlib import Path

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.web import HTTPError
from traitlets.config import Config
from voila.app import Voila

MAX_MESSAGE = 22 << 20  # bytes: a photo of the 20 MB that photo_page.py accepts, and room to spare
MAX_MEMORY = 6 << 30  # bytes that the server, and the kernel of each visitor, may allocate
PROTOCOL = "v1.kernel.websocket.jupyter.org"


class Connection(ZMQChannelsWebsocketConnection):
    """Speak the page's protocol only: a message of the older one makes Voilà allocate gigabytes."""

    async def prepare(self) -> None:
        offered = self.websocket_handler.request.headers.get("Sec-WebSocket-Protocol", "")
        if PROTOCOL not in offered:
            raise HTTPError(400, f"this page needs the protocol {PROTOCOL}")
        await super().prepare()


def limit_memory() -> None:
    """Let this process, and each that it starts, allocate `MAX_MEMORY`; only Linux keeps to it."""
    with contextlib.suppress(ImportError):  # Windows
        import resource

        _, highest = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, highest))


SETTINGS = {
    "Voila": {
        "ip": "127.0.0.1",
        "kernel_websocket_connection_class": Connection,
        "tornado_settings": {
            "websocket_max_message_size": MAX_MESSAGE,
            # No other name for this machine, which another's page could use (DNS rebinding).
            "allow_remote_access": False,
            # The message by which a closed page ends its kernel has no XSRF token. It needs the
            # kernel's secret id, and its origin is checked all the same.
            "disable_check_xsrf": True,
        },
    },
    # Voilà copies what the link says of these into the page.
    "VoilaConfiguration": {"allow_theme_override": "NO", "allow_template_override": "NO"},
    # Seconds: where that message is lost, the last photo goes with the idle kernel.
    "MappingKernelManager": {"cull_idle_timeout": 60, "cull_interval": 15},
}


if __name__ == "__main__":
    limit_memory()
    notebook = str(Path(__file__).parent / "demo.ipynb")
    Voila.launch_instance([notebook, *sys.argv[1:]], config=Config(SETTINGS))
