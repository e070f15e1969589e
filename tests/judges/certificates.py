"""An authority, and certificates of its making that the strictest reader takes."""
import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# More than testssl.sh takes for too few, less than Mozilla takes for too many.
DAYS = 80


def named(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def usage(is_authority):
    words = ('content_commitment', 'key_encipherment', 'data_encipherment', 'key_agreement', 'encipher_only', 'decipher_only')
    return x509.KeyUsage(
        digital_signature=not is_authority, key_cert_sign=is_authority, crl_sign=is_authority, **dict.fromkeys(words, False)
    )


def begun(subject, issuer, key, issuer_key, is_authority):
    now = datetime.datetime.now(datetime.timezone.utc)
    by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=DAYS))
    builder = builder.add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    builder = builder.add_extension(usage(is_authority), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.add_extension(by, critical=False)


class Authority:
    """Keeps its certificate in `path`."""

    def __init__(self, folder):
        self.folder, self.path, self.name = folder, folder / 'authority.pem', named('authority.test')
        self.key = ec.generate_private_key(ec.SECP256R1())
        certificate = begun(self.name, self.name, self.key, self.key, True).sign(self.key, hashes.SHA256())
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name, is_rsa):
        """A certificate for a name and its key, in PEM."""
        key = rsa.generate_private_key(65537, 2048) if is_rsa else ec.generate_private_key(ec.SECP256R1())
        builder = begun(named(name), self.name, key, self.key, False)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        key_format = serialization.PrivateFormat.PKCS8
        return (
            certificate.public_bytes(serialization.Encoding.PEM).decode(),
            key.private_bytes(serialization.Encoding.PEM, key_format, serialization.NoEncryption()).decode(),
        )
