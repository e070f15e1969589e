"""The certificate that all gateways of a run show: ECDSA on P-256, signed by itself, made anew for each run."""

import json
import subprocess

from lib.processes import Failed

NAME = "perf.test"
CHAIN, KEY, BOTH = "certificate.pem", "certificate.key", "certificate-and-key.pem"


def make(directory):
    """Leaves the certificate, its key, and both in one file."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
               "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", directory / KEY,
               "-out", directory / CHAIN]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError as error:
        raise Failed("openssl is not installed") from error
    if done.returncode != 0:
        raise Failed(f"openssl made no certificate:\n{done.stderr[-1000:]}")
    (directory / BOTH).write_text((directory / CHAIN).read_text() + (directory / KEY).read_text())


def values(directory):
    """What templates are given: paths, and the texts as strings of YAML."""
    given = {"CERTIFICATE": directory / CHAIN, "CERTIFICATEKEY": directory / KEY, "CERTIFICATEANDKEY": directory / BOTH}
    if (directory / CHAIN).exists():
        given |= {"CERTIFICATETEXT": json.dumps((directory / CHAIN).read_text()),
                  "CERTIFICATEKEYTEXT": json.dumps((directory / KEY).read_text())}
    return given
