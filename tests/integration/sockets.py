"""What a hostile client sends, and hears: no library of the protocol is between."""

import socket


def told(port: int, data: bytes) -> bytes:
    """Everything at once, as it stands; what the server says until it closes."""
    answers = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        try:
            client.sendall(data)
            while part := client.recv(65536):
                answers += part
        except ConnectionError:
            pass  # it did not wait for the rest
    return answers
