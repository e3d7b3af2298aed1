"""What MicroPython calls ussl or ssl on a board, over the unix port's tls: mutual, and strict."""

import tls


def wrap_socket(sock, key, cert, cadata, server_hostname, do_handshake=True):
    """A TLS stream over a socket."""
    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    context.verify_mode = tls.CERT_REQUIRED
    context.load_cert_chain(cert, key)
    context.load_verify_locations(cadata)
    return context.wrap_socket(sock, server_hostname=server_hostname, do_handshake_on_connect=do_handshake)
