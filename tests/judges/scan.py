"""TLS as sslyze, testssl.sh and openssl find it: nothing old, nothing weak, and Mozilla's configurations kept to."""
import json
import subprocess

from sslyze import (
    CertificateInfoExtraArgument,
    ScanCommand,
    ScanCommandAttemptStatusEnum,
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkLocation,
    ServerScanRequest,
    ServerScanStatusEnum,
)
from sslyze.mozilla_tls_profile.tls_config_checker import (
    MozillaTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)
from sslyze.plugins.robot.implementation import RobotScanResultEnum

OLD = ('ssl_2_0', 'ssl_3_0', 'tls_1_0', 'tls_1_1')
# Ephemeral keys on elliptic curves, and ciphers that vouch for what they hide.
STRONG = ('_GCM_', '_CHACHA20_POLY1305_')
# Resumption is left to openssl: sslyze takes a server for one that does not resume when it gives another ticket each time.
EVERYTHING = set(ScanCommand) - {ScanCommand.HTTP_HEADERS, ScanCommand.SESSION_RESUMPTION}
# What testssl.sh finds and is as it should be: the certificate names nobody who would revoke it; clients choose among ciphers that are
# all good, as Mozilla recommends; some versions of openssl bring no engine for GOST.
AS_IT_SHOULD_BE = {'cert_revocation', 'cipher_order', 'engine_problem'}


def scanned(secure, name, authority):
    """All that sslyze looks at, of what is served under a name."""
    host, port = secure.rsplit(':', 1)
    certificates = CertificateInfoExtraArgument(custom_ca_file=authority)
    request = ServerScanRequest(
        server_location=ServerNetworkLocation(hostname=name, port=int(port), ip_address=host),
        scan_commands=EVERYTHING,
        scan_commands_extra_arguments=ScanCommandsExtraArguments(certificate_info=certificates),
    )
    scanner = Scanner()
    scanner.queue_scans([request])
    result = next(scanner.get_results())
    assert result.scan_status is ServerScanStatusEnum.COMPLETED, result.connectivity_error_trace
    for command in EVERYTHING:
        attempt = getattr(result.scan_result, command.value)
        assert attempt.status is ScanCommandAttemptStatusEnum.COMPLETED, (command, attempt.error_trace)
    return result


def accepted(found, version):
    suites = getattr(found, f'{version}_cipher_suites').result
    return [suite.cipher_suite.name for suite in suites.accepted_cipher_suites]


def expect_no_weakness(found):
    for version in OLD:
        assert not getattr(found, f'{version}_cipher_suites').result.is_tls_version_supported, version
    assert not found.tls_compression.result.supports_compression
    assert not found.heartbleed.result.is_vulnerable_to_heartbleed
    assert not found.openssl_ccs_injection.result.is_vulnerable_to_ccs_injection
    robot = found.robot.result.robot_result
    assert robot is RobotScanResultEnum.NOT_VULNERABLE_RSA_NOT_SUPPORTED, robot
    renegotiation = found.session_renegotiation.result
    assert not renegotiation.is_vulnerable_to_client_renegotiation_dos
    assert not found.tls_1_3_early_data.result.supports_early_data
    for deployment in found.certificate_info.result.certificate_deployments:
        assert deployment.verified_certificate_chain and deployment.received_chain_has_valid_order
        assert not deployment.verified_chain_has_sha1_signature


def expect_mozilla(result, which):
    profile = MozillaTlsConfiguration.get(which)
    check_server_against_tls_configuration(result, profile)


def scan_both_versions(secure, trusted):
    result = scanned(secure, 'a.test', trusted)
    found = result.scan_result
    expect_no_weakness(found)
    older, newer = accepted(found, 'tls_1_2'), accepted(found, 'tls_1_3')
    assert len(older) >= 3 and all(name.startswith('TLS_ECDHE_') and any(it in name for it in STRONG) for name in older), older
    assert {'TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'} == set(newer), newer
    curves = {curve.name for curve in found.elliptic_curves.result.supported_curves}
    assert curves == {'X25519', 'secp256r1', 'secp384r1'}, curves
    assert found.session_renegotiation.result.supports_secure_renegotiation
    assert found.tls_extended_master_secret.result.supports_ems_extension
    expect_mozilla(result, TlsConfigurationEnum.MOZILLA_INTERMEDIATE)


def scan_newest_version(secure, trusted):
    """An ssl that allows 1.3 alone, with a certificate on a curve: Mozilla's `modern`."""
    result = scanned(secure, 'modern.test', trusted)
    found = result.scan_result
    expect_no_weakness(found)
    assert not found.tls_1_2_cipher_suites.result.is_tls_version_supported
    assert len(accepted(found, 'tls_1_3')) == 3
    expect_mozilla(result, TlsConfigurationEnum.MOZILLA_MODERN)


# The openssl that testssl.sh asks to bring back a session closes as soon as it is through, which may be before the ticket of TLS 1.3 has
# come, of any server; this one asks for a page first and stays for its answer, ahead of which the ticket is.
PATIENT_OPENSSL = r"""#!/bin/sh
case " $* " in
*' -sess_out '*) printf 'GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n' | openssl "$@" -ign_eof ;;
*) exec openssl "$@" ;;
esac
"""


def testssl_said(secure, trusted, folder):
    """What it found, by name: how bad, and in its words."""
    host, port = secure.rsplit(':', 1)
    found, openssl = folder / 'testssl.json', folder / 'openssl'
    openssl.write_text(PATIENT_OPENSSL)
    openssl.chmod(0o755)
    words = ['testssl', '--openssl', str(openssl), '--ip', host, '--nodns', 'none', '--add-ca', str(trusted)]
    words += ['--warnings', 'off', '--color', '0', '--quiet', '--protocols', '--server-defaults', '--server-preference']
    words += ['--vulnerable', '--pfs', '--jsonfile', str(found)]
    done = subprocess.run([*words, f'a.test:{port}'], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180)
    said = {line['id']: (line['severity'], line['finding']) for line in json.loads(found.read_text())}
    assert len(said) > 50, (said, done.stdout, done.stderr)
    return said


def testssl(secure, trusted, folder):
    """All of its checks of versions, ciphers, certificate and known attacks."""
    said = testssl_said(secure, trusted, folder)
    bad = {name: told for name, told in said.items() if told[0] not in ('OK', 'INFO') and name not in AS_IT_SHOULD_BE}
    assert not bad, bad
    for name in ('heartbleed', 'CCS', 'ticketbleed', 'secure_renego', 'CRIME_TLS', 'POODLE_SSL', 'SWEET32', 'DROWN', 'BEAST', 'RC4'):
        assert said[name][0] == 'OK', (name, said[name])
    assert said['sessionresumption_ticket'] == ('INFO', 'supported'), said['sessionresumption_ticket']


def resumption(secure, trusted, folder):
    """A client that comes back is known by its ticket, in both versions."""
    ask = b'GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n'
    for version in ('-tls1_2', '-tls1_3'):
        words = ['openssl', 's_client', '-connect', secure, '-servername', 'a.test', '-CAfile', str(trusted), version, '-ign_eof']
        kept = str(folder / f'session{version}')
        for more, begins in (['-sess_out', kept], 'New,'), (['-sess_in', kept], 'Reused,'):
            done = subprocess.run([*words, *more], input=ask, capture_output=True, timeout=20)
            told = done.stdout.decode(errors='replace')
            assert any(line.startswith(begins) for line in told.splitlines()), (version, begins, told, done.stderr)
            assert 'Verify return code: 0 (ok)' in told and 'HTTP/1.1 200' in told, told
