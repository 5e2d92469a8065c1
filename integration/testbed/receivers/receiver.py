"""A receiver of lines by Python's ssl, as a Python program would have it:
python3 receiver.py PORT CERT KEY CA OUT. It demands a client's certificate.
What was read is in the file before more is read."""

import os
import socket
import ssl
import sys
import threading


def serve(peer, tls, out):
    rest = b""
    try:
        with tls.wrap_socket(peer, server_side=True) as conn:
            while part := conn.recv(1 << 16):
                whole, newline, rest = (rest + part).rpartition(b"\n")
                data = memoryview(whole + newline)
                while data:
                    data = data[os.write(out, data):]
    except OSError as e:  # ssl.SSLError is one
        print(e, file=sys.stderr)


def main():
    port, cert, key, ca, path = sys.argv[1:]
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(cert, key)
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with socket.create_server(("127.0.0.1", int(port))) as door:
        while True:
            peer, _ = door.accept()
            threading.Thread(target=serve, args=(peer, tls, out), daemon=True).start()


main()
