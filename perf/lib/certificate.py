"""The certificates that all gateways of a run show, signed by themselves and made anew for each run: ECDSA on P-256, and RSA, which is dear
to sign with."""

import json
import subprocess
from typing import NamedTuple

from lib.processes import Failed

NAME = "perf.test"


class Files(NamedTuple):
    """Names of the files of one certificate, within the folder of a run."""
    chain: str
    key: str
    both: str


ECDSA = Files("certificate.pem", "certificate.key", "certificate-and-key.pem")
RSA = Files("rsa.pem", "rsa.key", "rsa-and-key.pem")
KEYS = {ECDSA: ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], RSA: ["rsa:2048"]}


def make(directory):
    """Leaves the certificates, their keys, and both in one file."""
    for files, key in KEYS.items():
        command = ["openssl", "req", "-x509", "-newkey", *key, "-nodes", "-days", "30", "-subj", f"/CN={NAME}", "-addext",
                   f"subjectAltName=DNS:{NAME}", "-keyout", directory / files.key, "-out", directory / files.chain]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except FileNotFoundError as error:
            raise Failed("openssl is not installed") from error
        if done.returncode != 0:
            raise Failed(f"openssl made no certificate:\n{done.stderr[-1000:]}")
        both = (directory / files.chain).read_text() + (directory / files.key).read_text()
        (directory / files.both).write_text(both)


def values(directory, files=ECDSA):
    """What templates are given: paths, and the texts as strings of YAML."""
    chain, key = directory / files.chain, directory / files.key
    given = {"CERTIFICATE": chain, "CERTIFICATEKEY": key, "CERTIFICATEANDKEY": directory / files.both}
    if chain.exists():
        given |= {"CERTIFICATETEXT": json.dumps(chain.read_text()), "CERTIFICATEKEYTEXT": json.dumps(key.read_text())}
    return given
