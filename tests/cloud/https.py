"""Serves a folder over HTTPS on loopback, with byte ranges, as plain web servers do, twice: under a certificate that FOLDER.pem
holds, and under one that nobody trusts. `python https.py FOLDER`, with the package `cryptography`."""

import datetime
import ipaddress
import re
import ssl
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

folder = Path(sys.argv[1])


def certificate():
    """An authority's certificate, and one that it has signed with its key."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)

    def sign(name, public, extension):
        of = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (name, "authority")]
        made = x509.CertificateBuilder().subject_name(of[0]).issuer_name(of[1]).public_key(public)
        made = made.serial_number(x509.random_serial_number()).add_extension(extension, critical=True)
        made = made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        return made.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (
        sign("authority", authority.public_key(), x509.BasicConstraints(ca=True, path_length=None)),
        sign("127.0.0.1", key.public_key(), address),
        private,
    )


class Files(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        path = (folder / self.path.lstrip("/")).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        first, last, status = 0, len(data) - 1, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last, status = int(asked[1]), min(int(asked[2] or last), last), 206
        part = data[first : last + 1]
        self.send_response(status)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        if body:
            self.wfile.write(part)

    def do_GET(self):
        self.answer(True)

    def do_HEAD(self):
        self.answer(False)

    def log_message(self, *_):
        pass


def serve(trusted):
    authority, public, private = certificate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(private + public)
        file.flush()
        context.load_cert_chain(file.name)
    if trusted:
        folder.with_suffix(".pem").write_bytes(authority)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever).start()
    return f"https://127.0.0.1:{server.server_address[1]}"


trusted, other = serve(True), serve(False)
print(f"nobody trusts {other}")
print(f"serving {trusted}", flush=True)
